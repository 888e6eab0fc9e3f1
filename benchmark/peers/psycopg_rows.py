"""psycopg: COPY BINARY row by row into Python objects, and those into Arrow; what one writes without a library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import psycopg
import pyarrow as pa

from benchmark.checksum import type_name
from benchmark.target import Target

BATCH_ROWS = 10_000

SIMPLE_TYPES = {
    "bool": pa.bool_(),
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "text": pa.string(),
    "varchar": pa.string(),
    "bpchar": pa.string(),
    "bytea": pa.binary(),
    "date": pa.date32(),
    "uuid": pa.binary(16),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
    "vector": pa.binary(),
}
UNKNOWN = {"vector": "bytea"}
"""What psycopg does not know is taken as the bytes that come."""


def read(target: Target) -> Iterator[pa.RecordBatch]:
    """Read with the COPY iterator, some thousand rows a batch."""
    with psycopg.connect(target.dsn) as connection, connection.cursor() as cursor:
        columns = cursor.execute(f"{target.sql} LIMIT 0".encode()).description or []
        names = [type_name(connection, column) for column in columns]
        schema = pa.schema(
            [(column.name, _arrow(column, name)) for column, name in zip(columns, names, strict=True)]
        )
        with cursor.copy(f"COPY ({target.sql}) TO STDOUT (FORMAT BINARY)".encode()) as copy:
            copy.set_types([UNKNOWN.get(name, name) for name in names])
            rows = copy.rows()
            while chunk := list(islice(rows, BATCH_ROWS)):
                arrays = [
                    pa.array(_plain(values, kind), kind)
                    for values, kind in zip(zip(*chunk, strict=True), schema.types, strict=True)
                ]
                yield pa.record_batch(arrays, schema=schema)


def _plain(values: Sequence[Any], kind: pa.DataType) -> Sequence[Any]:
    """Turn UUIDs into their bytes."""
    if kind == SIMPLE_TYPES["uuid"]:
        return [None if value is None else value.bytes for value in values]
    return values


def _arrow(column: psycopg.Column, name: str) -> pa.DataType:
    if name == "numeric":
        return pa.decimal128(column.precision or 38, column.scale or 0)
    return SIMPLE_TYPES[name]
