"""Results as files: written batch by batch under a temporary name, complete or not there at all."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from pyarrow import ipc

from pgflight import convert, text

_ROW_GROUP_BYTES = 64 << 20
_ROW_GROUP_ROWS = 1 << 20

Write = Callable[[pa.RecordBatch], None]
Writer = Callable[[Any, pa.Schema], AbstractContextManager[Write]]


@contextmanager
def csv_writer(target: Any, schema: pa.Schema, delimiter: str = ",") -> Iterator[Write]:
    """Write CSV with a header; NULL is an empty field, an empty string a quoted one."""
    options = pa_csv.WriteOptions(delimiter=delimiter)
    with pa_csv.CSVWriter(target, text.csv_schema(schema), write_options=options) as writer:
        yield lambda batch: writer.write_batch(text.for_csv(batch))


tsv_writer: Writer = partial(csv_writer, delimiter="\t")


@contextmanager
def _ipc_file_writer(target: Any, schema: pa.Schema, compression: str | None = None) -> Iterator[Write]:
    # A file holds one dictionary a column: later ones may extend it (deltas), not replace it.
    options = ipc.IpcWriteOptions(compression=compression, emit_dictionary_deltas=True)
    with ipc.new_file(target, schema, options=options) as writer:
        yield writer.write_batch


@contextmanager
def _ipc_stream_writer(target: Any, schema: pa.Schema) -> Iterator[Write]:
    with ipc.new_stream(target, schema) as writer:
        yield writer.write_batch


@contextmanager
def _parquet_writer(target: Any, schema: pa.Schema) -> Iterator[Write]:
    with pq.ParquetWriter(target, convert.parquet_schema(schema), compression="zstd") as writer:
        groups = _RowGroups(writer)
        yield groups.add
        groups.flush()


class _RowGroups:
    """Collects batches to row groups of a useful size; pyarrow makes one of each batch."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer
        self._batches: list[pa.RecordBatch] = []
        self._rows = 0
        self._bytes = 0

    def add(self, batch: pa.RecordBatch) -> None:
        self._batches.append(convert.for_parquet(batch))
        self._rows += batch.num_rows
        self._bytes += batch.nbytes
        if self._rows >= _ROW_GROUP_ROWS or self._bytes >= _ROW_GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_batches(self._batches), row_group_size=self._rows)
        self._batches, self._rows, self._bytes = [], 0, 0


WRITERS: dict[str, Writer] = {
    ".parquet": _parquet_writer,
    ".arrow": _ipc_file_writer,
    ".arrows": _ipc_stream_writer,
    ".feather": partial(_ipc_file_writer, compression="lz4"),
    ".csv": csv_writer,
    ".tsv": tsv_writer,
}


def writer_for(path: Path) -> Writer:
    """Choose the writer by the file's suffix.

    Raises
    ------
    ValueError
        The suffix is not one of those in `WRITERS`, the folder is missing, or what is there is not a file.
    """
    if path.suffix not in WRITERS:
        raise ValueError(f"cannot tell a format by the name {str(path)!r}: expected {', '.join(WRITERS)}")
    if not path.parent.is_dir():
        raise ValueError(f"there is no folder {str(path.parent)!r}")
    if path.exists() and not path.is_file():
        raise ValueError(f"{str(path)!r} is there already, and is not a file")
    return WRITERS[path.suffix]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` at the end, remove it after an error."""
    target = path.resolve()  # a symbolic link stays one
    part = target.with_name(f".pgflight-{secrets.token_hex(6)}.part")
    try:
        yield part
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
