"""The files of an export: written under another name, digested on the way, there when they are whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, Self

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from flight_server.export.manifest import PARTIAL, sync_directory
from flight_server.export.raw import RawWriter
from kernels.errors import ConfigError, RequestError

WRITE_BYTES = 4 << 20
ROW_GROUP_BYTES = 32 << 20
"""Arrow data in a Parquet row group; so much is held per stream."""


class BatchWriter(Protocol):
    """Writes batches in one format."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Take a batch."""

    def close(self) -> None:
        """Write what is left, and the format's end."""


class DigestedFile:
    """A file in the making, written in large pieces.

    Parameters
    ----------
    path : Path
        Its name when it is whole.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(path.name + PARTIAL)
        self._digest = xxhash.xxh3_128()
        self._held = bytearray()
        path.parent.mkdir(exist_ok=True)
        self._file: Any = self._partial.open("wb", buffering=0)
        self.size_bytes = 0
        self.closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._file.close()
        self._partial.unlink(missing_ok=True)

    def write(self, data: Any) -> int:
        """Take bytes."""
        view = memoryview(data).cast("B")
        self._digest.update(view)
        self._held += view
        self.size_bytes += len(view)
        if len(self._held) >= WRITE_BYTES:
            whole = len(self._held) // WRITE_BYTES * WRITE_BYTES
            self._put(whole)
        return len(view)

    def tell(self) -> int:
        """Return how many bytes were taken."""
        return self.size_bytes

    def flush(self) -> None:
        """Hold small pieces back: they are written with what follows."""

    def close(self) -> None:
        """Take no more bytes (the format's writer calls this)."""
        self.closed = True

    def publish(self) -> str:
        """Put the file, safe on the disk, under its name; return its digest."""
        self._put(len(self._held))
        os.fsync(self._file.fileno())
        self._partial.rename(self._path)
        sync_directory(self._path.parent)
        return self._digest.hexdigest()

    def _put(self, size: int) -> None:
        with memoryview(self._held) as held:
            at = 0
            while at < size:
                at += self._file.write(held[at:size])
        del self._held[:size]


class ParquetBatches:
    """Parquet, by row groups."""

    def __init__(self, file: DigestedFile, schema: pa.Schema) -> None:
        self._schema = schema
        self._held: list[pa.RecordBatch] = []
        try:
            self._writer = pq.ParquetWriter(pa.PythonFile(file, "w"), schema, compression="zstd")
        except pa.ArrowNotImplementedError as failure:
            raise RequestError(f"Parquet cannot hold this table ({failure}): use --format arrow") from failure

    def write(self, batch: pa.RecordBatch) -> None:
        """Take a batch."""
        self._held.append(batch)
        if sum(held.nbytes for held in self._held) >= ROW_GROUP_BYTES:
            self._put()

    def close(self) -> None:
        """Write what is left, and the footer."""
        if self._held:
            self._put()
        self._writer.close()

    def _put(self) -> None:
        table, self._held = pa.Table.from_batches(self._held, self._schema), []
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))


class ArrowBatches:
    """Arrow's IPC file format, uncompressed: to be mapped."""

    def __init__(self, file: DigestedFile, schema: pa.Schema) -> None:
        self._writer = pa.ipc.new_file(pa.PythonFile(file, "w"), schema)

    def write(self, batch: pa.RecordBatch) -> None:
        """Take a batch."""
        self._writer.write_batch(batch)

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()


FORMATS: dict[str, Callable[[DigestedFile, pa.Schema], BatchWriter]] = {
    "parquet": ParquetBatches,
    "arrow": ArrowBatches,
    "raw": RawWriter,
}


def require_format(name: str) -> None:
    """Refuse a format there is not.

    Raises
    ------
    ConfigError
        Naming those there are.
    """
    if name not in FORMATS:
        raise ConfigError(f"unknown format {name!r}: choose from {', '.join(FORMATS)}")
