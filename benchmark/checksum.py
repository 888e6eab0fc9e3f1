"""Are two results the same?  Checksums of Arrow data that know neither the order of rows nor a column's form.

Contestants spell one value differently (a decimal of another precision, a numeric as text, large or small offsets),
so columns are first brought to one form each, which PostgreSQL's own description of the table decides.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc

from benchmark.target import Target

if TYPE_CHECKING:
    import polars as pl

SEED = 7
MASK = (1 << 64) - 1
VECTOR_HEAD_BYTES = 4
"""pgvector's wire form: dimensions and two spare bytes, then float32 in network order."""
WHOLE_ROWS = "(rows)"
VECTOR = "vector"
FORMS = {
    "bool": pa.bool_(),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "bytea": pa.large_binary(),
    "uuid": pa.binary(16),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
    "int2": pa.int64(),
    "int4": pa.int64(),
    "int8": pa.int64(),
    "numeric": pa.decimal128(38, 10),
    "date": pa.date32(),
    "text": pa.large_string(),
    "varchar": pa.large_string(),
    "bpchar": pa.large_string(),
}
PADDED = "bpchar"
"""char(n): trailing blanks mean nothing in PostgreSQL, and some contestants drop them."""


class Checksums:
    """The checksum of every column, and of the rows as wholes, over any number of pieces."""

    def __init__(self, target: Target) -> None:
        self.rows = 0
        self._types = column_types(target)
        self._sums: dict[str, int] = defaultdict(int)

    def add(self, piece: pa.RecordBatch | pa.Table) -> None:
        """Take in some rows."""
        import polars as pl  # noqa: PLC0415 - what compares no values works without it

        self.rows += piece.num_rows
        plain = []
        for (name, kind), column in zip(self._types.items(), piece.columns, strict=True):
            values = _floats(column) if kind == VECTOR else _to_form(column, FORMS[kind])
            if kind == PADDED:
                trimmed = pc.utf8_rtrim(values, " ")
                blanks = pc.sum(pc.subtract(pc.binary_length(values), pc.binary_length(trimmed))).as_py()
                self._add(f"{name} (padding)", blanks or 0)
                values = trimmed
            plain.append(values)
        frame = pl.DataFrame(dict(zip(self._types, plain, strict=True)))
        for series in frame:
            self._add(series.name, _wrapping_sum(series.hash(SEED)))
        self._add(WHOLE_ROWS, _wrapping_sum(frame.hash_rows(SEED)))

    def result(self) -> dict[str, str]:
        """Return the checksums by column, as text."""
        return {name: f"{value:016x}" for name, value in self._sums.items()}

    def _add(self, name: str, value: int) -> None:
        self._sums[name] = (self._sums[name] + value) & MASK


def column_types(target: Target) -> dict[str, str]:
    """Return the table's columns and their PostgreSQL types."""
    with psycopg.connect(target.dsn) as connection:
        described = connection.execute(f"{target.sql} LIMIT 0".encode()).description or []
        return {column.name: type_name(connection, column) for column in described}


def type_name(connection: psycopg.Connection, column: psycopg.Column) -> str:
    """Return the name of a column's type, also of one that an extension brings."""
    known = connection.adapters.types.get(column.type_code)
    if known is not None:
        return known.name
    row = connection.execute("SELECT typname FROM pg_type WHERE oid = %s", [column.type_code]).fetchone()
    return str(row[0]) if row else "unknown"


def differences(checksums: dict[str, str], reference: dict[str, str]) -> list[str]:
    """Name the columns that differ."""
    return [name for name in reference if checksums.get(name) != reference[name]]


def _to_form(column: pa.Array | pa.ChunkedArray, form: pa.DataType) -> pa.Array | pa.ChunkedArray:
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.cast(column.type.storage_type)
    return column.cast(form)


def _floats(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Bring vectors to one form, the bytes of their floats: some are lists, some as pgvector sends them."""
    pieces = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    rows: list[bytes | None] = []
    for piece in pieces:
        plain = piece.storage if isinstance(piece.type, pa.BaseExtensionType) else piece
        if pa.types.is_fixed_size_list(plain.type):
            rows += [None if row is None else np.asarray(row, ">f4").tobytes() for row in plain.to_pylist()]
        else:
            rows += [None if row is None else row[VECTOR_HEAD_BYTES:] for row in plain.to_pylist()]
    return pa.array(rows, pa.large_binary())


def _wrapping_sum(series: pl.Series) -> int:
    return int(np.add.reduce(series.to_numpy()))
