"""Rows for COPY BINARY: what PostgreSQL takes in, it gives back byte for byte; what is not exact is refused."""

from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Sequence
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels.backend import select_backend
from kernels.column import Column
from kernels.encoder import HEADER, TRAILER, Encoder, type_name
from kernels.errors import RequestError, ValueRangeError

DAY = dt.date(1, 1, 1), dt.date(9999, 12, 31)
CASES: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "bool": (pa.bool_(), st.booleans()),
    "int8": (pa.int8(), st.integers(-(2**7), 2**7 - 1)),
    "uint16": (pa.uint16(), st.integers(0, 2**16 - 1)),
    "int32": (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    "int64": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "uint64": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "float32": (pa.float32(), st.floats(width=32)),
    "float64": (pa.float64(), st.floats()),
    "decimal_9_2": (pa.decimal128(9, 2), st.decimals(-(10**7) + 1, 10**7 - 1, places=2)),
    "decimal_38_7": (pa.decimal128(38, 7), st.integers(-(10**38) + 1, 10**38 - 1).map(lambda n: scaled(n, 7))),
    "decimal_38_38": (pa.decimal128(38, 38), st.integers(-(10**38) + 1, 10**38 - 1).map(lambda n: scaled(n, 38))),
    "decimal_76_3": (pa.decimal256(76, 3), st.integers(-(10**76) + 1, 10**76 - 1).map(lambda n: scaled(n, 3))),
    "text": (pa.string(), st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))),
    "large_text": (pa.large_string(), st.text("äö€x", max_size=50)),
    "view": (pa.string_view(), st.text("abc", max_size=50)),
    "coded": (pa.dictionary(pa.int8(), pa.string()), st.sampled_from(["a", "bb", ""])),
    "bytes": (pa.binary(), st.binary(max_size=50)),
    "four": (pa.binary(4), st.binary(min_size=4, max_size=4)),
    "uuid": (pa.uuid(), st.uuids().map(lambda value: value.bytes)),
    "json": (pa.json_(), st.sampled_from(['{"a": 1}', "[]", "null", '"ü"'])),
    "date32": (pa.date32(), st.dates(*DAY)),
    "date64": (pa.date64(), st.dates(*DAY)),
    "time": (pa.time64("us"), st.times()),
    "time_s": (pa.time32("s"), st.times().map(lambda value: value.replace(microsecond=0))),
    "stamp": (pa.timestamp("us"), st.datetimes()),
    "stamp_ms": (
        pa.timestamp("ms", "UTC"),
        st.datetimes().map(lambda v: v.replace(microsecond=v.microsecond // 1000 * 1000)),
    ),
    "duration": (pa.duration("us"), st.integers(-(2**52), 2**52)),
    "interval": (
        pa.month_day_nano_interval(),
        st.tuples(st.integers(-999, 999), st.integers(-999, 999), st.integers(-(2**50), 2**50).map(lambda n: n * 1000)),
    ),
    "nothing": (pa.null(), st.none()),
}  # fmt: skip


def scaled(number: int, scale: int) -> decimal.Decimal:
    return decimal.Decimal(number).scaleb(-scale, decimal.Context(prec=100))


def columns_of(database: psycopg.Connection, table: str) -> list[Column]:
    rows = database.execute(
        "select a.attname, a.atttypid::int8, t.typname, t.typtype::text, s.proname from pg_attribute a "
        "join pg_type t on t.oid = a.atttypid left join pg_proc s on s.oid = t.typsend "
        "where a.attrelid = %s::regclass and a.attnum > 0 order by a.attnum",
        [table],
    ).fetchall()
    return [Column(name, oid, type_name=kind, kind=letter, send=send) for name, oid, kind, letter, send in rows]


def encoded(batch: pa.RecordBatch, columns: Sequence[Column]) -> bytes:
    encoder = Encoder(select_backend("cpu"), batch.schema, columns)
    assert encoder.is_native
    return HEADER + b"".join(encoder.encode(batch)) + TRAILER


def copy_in(database: psycopg.Connection, table: str, data: bytes) -> None:
    with database.cursor().copy(f"copy {table} from stdin (format binary)") as copy:
        copy.write(data)


def copy_out(database: psycopg.Connection, table: str) -> bytes:
    with database.cursor().copy(f"copy {table} to stdout (format binary)") as copy:
        return b"".join(bytes(part) for part in copy)


def make_table(database: psycopg.Connection, schema: pa.Schema) -> list[Column]:
    database.execute("drop table if exists scratch.made")
    names = ", ".join(f'"{field.name}" {type_name(field.type)}' for field in schema)
    database.execute(f"create table scratch.made ({names})")
    return columns_of(database, "scratch.made")


def array_of(kind: pa.DataType, values: list[Any]) -> pa.Array:
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, pa.array(values, kind.storage_type))
    return pa.array(values, kind)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_byte_for_byte(database: psycopg.Connection, name: str, data: st.DataObject) -> None:
    """Into PostgreSQL and out again; also of a slice, whose bits and offsets begin anywhere."""
    kind, values = CASES[name]
    array = array_of(kind, data.draw(st.lists(st.none() | values, max_size=30)))
    batch = pa.record_batch([array.slice(data.draw(st.integers(0, 3)))], names=["a"])
    columns = make_table(database, batch.schema)
    written = encoded(batch, columns)
    copy_in(database, "scratch.made", written)
    assert copy_out(database, "scratch.made") == written


def test_many_columns_and_rows(database: psycopg.Connection) -> None:
    """More rows than are written at once; values seen through psycopg."""
    count = 20_000
    numbers = list(range(count))
    batch = pa.record_batch(
        {
            "n": pa.array([None if n % 7 == 0 else n for n in numbers]),
            "t": pa.array([None if n % 5 == 0 else f"text {n}" for n in numbers]),
            "d": pa.array([decimal.Decimal(n * 1234567).scaleb(-3) for n in numbers], pa.decimal128(20, 3)),
        }
    )
    copy_in(database, "scratch.made", encoded(batch, make_table(database, batch.schema)))
    rows = database.execute("select n, t, d from scratch.made order by d").fetchall()
    assert rows == list(zip(*(column.to_pylist() for column in batch.columns), strict=True))


@pytest.mark.parametrize(
    ("target", "array"),
    [
        ("smallint", pa.array([1, 40_000])),
        ("integer", pa.array([1, 2**31])),
        ("bigint", pa.array([1, 2**63], pa.uint64())),
        ("timestamp", pa.array([1_000, 1_001], pa.timestamp("ns"))),
        ("timestamp", pa.array([0, 2**62], pa.timestamp("ms"))),
        ("timestamp", pa.array([0, -(2**63)], pa.timestamp("us"))),
        ("date", pa.array([0, -(2**31)], pa.date32())),
        ("date", pa.array([0, 1], pa.date64())),
        ("time", pa.array([0, 1], pa.time64("ns"))),
        ("interval", pa.array([(0, 0, 0), (0, 0, 1)], pa.month_day_nano_interval())),
        ("interval", pa.array([0, 2**62], pa.duration("s"))),
    ],
    ids=str,
)
def test_what_is_not_exact_is_refused(database: psycopg.Connection, target: str, array: pa.Array) -> None:
    database.execute(f"create table scratch.made (a {target})")
    batch = pa.record_batch([array], names=["a"])
    encoder = Encoder(select_backend("cpu"), batch.schema, columns_of(database, "scratch.made"))
    assert encoder.is_native
    with pytest.raises(ValueRangeError, match=r"row 1, column 'a'"):
        list(encoder.encode(batch))


def test_types_without_a_form() -> None:
    assert type_name(pa.list_(pa.decimal128(9, 2))) == "numeric(9,2)[]"
    for kind in (pa.struct([("a", pa.int8())]), pa.map_(pa.string(), pa.int8())):
        with pytest.raises(RequestError, match="has no type in PostgreSQL"):
            type_name(kind)
