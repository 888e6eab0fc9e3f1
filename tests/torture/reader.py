"""A client in a process of its own: ``python -m tests.torture.reader URI QUERY STREAMS SHARE MOMENT``.

It says at which moment it is, waits there if it was told to, and ends with what it read or why it did not.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pyarrow as pa
import xxhash

import pgflight


def digest(table: pa.Table, key: str) -> str:
    """Return a digest of all values, whatever order the rows came in."""
    hashed = xxhash.xxh3_128()
    for batch in table.sort_by(key).combine_chunks().to_batches():
        for column in batch.columns:
            for value in column.to_pylist():
                hashed.update(repr(value).encode())
    return str(hashed.hexdigest())


def moments(uri: str, query: str, streams: int, *, share: bool) -> Iterator[tuple[str, object]]:
    """Read; yield the name of each moment."""
    with pgflight.connect(uri, share_memory=share) as client:
        yield "connected", None
        reader = client.query(query, streams=streams, batch_bytes=256 << 10)
        yield "planned", None
        batches = []
        for batch in reader:
            batches.append(batch)
            if len(batches) == 1:
                yield "first", None
        table = pa.Table.from_batches(batches, reader.schema)
        yield "done", {"rows": table.num_rows, "digest": digest(table, "id")}


def main(uri: str, query: str, streams: str, share: str, wait_at: str) -> None:
    try:
        for moment, found in moments(uri, query, int(streams), share=share == "yes"):
            print(json.dumps({"moment": moment, "found": found}), flush=True)
            if moment == wait_at:
                sys.stdin.readline()
    except Exception as failure:  # whatever it is, it is what the client gets
        kinds = [kind.__name__ for kind in type(failure).__mro__]
        print(json.dumps({"moment": "failed", "kinds": kinds, "text": str(failure)}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
