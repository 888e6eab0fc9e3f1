"""Batches -> the stream that Flight sends; where the client wants it, compressed or left in its memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pyarrow import flight, ipc

from flight_server.reading.shared import SharedBatches
from flight_server.status import typed_batches
from transport.shared import SharedMemory


def stream(
    schema: pa.Schema, batches: Iterator[Any], compression: str, offered: str = ""
) -> flight.GeneratorStream:
    """Return a stream of batches; only Flight errors come out of it.

    Parameters
    ----------
    schema : Schema
    batches : iterator
        Of record batches, with metadata or without.  Begun already: its clean-up runs whatever happens.
    compression : {"none", "lz4", "zstd"}
    offered : str
        Where the client has memory for uncompressed batches, if it is on this host; else empty.
    """
    memory = SharedMemory.opened(offered) if offered and compression == "none" else None
    guarded = typed_batches(batches if memory is None else map(SharedBatches(memory, schema).replace, batches))
    return flight.GeneratorStream(schema, guarded if compression == "none" else _compressed(guarded, compression))


def _compressed(batches: Iterator[Any], compression: str) -> Iterator[Any]:
    """Wrap each batch: a bare one would be compressed under the interpreter's lock, and so stop all others."""
    options = ipc.IpcWriteOptions(compression=compression)
    for batch in batches:
        if not isinstance(batch, pa.RecordBatch):  # one that is lent on a GPU: there is nothing to compress
            yield batch
        elif batch.num_rows:  # a wrapped stream has to yield something
            yield flight.RecordBatchStream(pa.Table.from_batches([batch]), options=options)
