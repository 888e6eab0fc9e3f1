"""Every type at its edges, against PostgreSQL's own functions and against psycopg's binary loaders."""

from __future__ import annotations

import datetime as dt
import json
import struct
import uuid
from decimal import Decimal
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from kernels import registry
from kernels.column import Column
from kernels.plan import TypePolicy, plan
from tests.helpers import oracle, wire
from tests.helpers.reading import read
from tests.kernels.type_cases import BY_HAND, CASES, QUERIES, Case
from transport.pool import ConnectionPool

SETUP = """
create domain scratch.count as int4 check (value >= 0);
create domain scratch.positive as scratch.count check (value > 0);
create domain scratch.amount as numeric(10, 2);
create domain scratch.price as scratch.amount not null default 0;
create domain scratch.greeting as varchar(10);
create type scratch.mood as enum ('sad', '', '日本 ''quoted''');
create type scratch.pair as (a int, b text);
"""
EXTENSIONS = {"citext": "citext", "ltree": "ltree", "lquery": "ltree", "ltxtquery": "ltree"}
SKIPPED = object()
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

every_framing = pytest.mark.parametrize("framing", wire.FRAMINGS)


@pytest.fixture
def scratch(database):
    """The scratch schema with the types that cases use."""
    database.execute(SETUP)
    return database


def fill(connection: psycopg.Connection, case: Case) -> None:
    """Make scratch.t of one row per literal; a domain that is NOT NULL gets none."""
    if case.row in EXTENSIONS:
        connection.execute(f"create extension {EXTENSIONS[case.row]} schema scratch")
    connection.execute(f"create table scratch.t (row int, v {case.ddl})")
    with connection.cursor() as cursor, cursor.copy("copy scratch.t from stdin") as copy:
        for row, literal in enumerate(case.literals):
            if literal is not None or case.ddl != "scratch.price":
                copy.write_row((row, literal))


def asked(connection: psycopg.Connection, case: Case) -> list[Any]:
    """Return what PostgreSQL's functions say the values are."""
    rows = connection.execute(f"select {case.oracle} from scratch.t order by row").fetchall()
    return [None if value is None else case.convert(value) for (value,) in rows]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.row}-{case.ddl}")
def test_edges(case: Case, scratch, pool, memory) -> None:
    """Schema and values, in both framings and both profiles."""
    fill(scratch, case)
    wanted = asked(scratch, case)
    assert any(value is not None for value in wanted)
    for framing in wire.FRAMINGS:
        table = read(pool, memory, "select v from scratch.t order by row", framing=framing)
        assert table.schema.field(0).type == case.arrow
        assert oracle.canonical(table.column(0)) == wanted
    plain = read(pool, memory, "select v from scratch.t order by row", policy=TypePolicy(profile="plain"))
    assert not isinstance(plain.schema.field(0).type, pa.BaseExtensionType)
    assert oracle.canonical(plain.column(0)) == wanted


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.row}-{case.ddl}")
def test_psycopg_agrees(case: Case, scratch, pool, memory) -> None:
    """Whatever psycopg's binary loaders can read is what we read."""
    fill(scratch, case)
    table = read(pool, memory, "select v from scratch.t order by row")
    found = oracle.canonical(table.column(0))
    if b"pg:cast" in (table.schema.field(0).metadata or {}):
        query, binary = "select v::text from scratch.t where row = %s", False
    else:
        query, binary = "select v from scratch.t where row = %s", True
    compared = 0
    with scratch.cursor(binary=binary) as cursor:
        for row, value in enumerate(found):
            wanted = loaded(cursor, query, row, value)
            if wanted is not SKIPPED:
                assert value == wanted, f"row {row}"
                compared += 1
    assert compared > 0


def loaded(cursor: psycopg.Cursor, query: str, row: int, ours: Any) -> Any:
    """Return psycopg's value in canonical form, SKIPPED where Python has none."""
    try:
        (value,) = cursor.execute(query, (row,)).fetchone()
    except psycopg.DataError:  # a year that datetime does not know
        return SKIPPED
    kind = cursor.description[0].type_code
    if kind in (114, 3802) and ours is not None:
        return ours if json.loads(ours) == value else value
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        size = "f" if kind == 700 else "d"
        return int.from_bytes(struct.pack(f">{size}", value), "big")
    if isinstance(value, Decimal):
        return oracle.digits(value)
    if isinstance(value, uuid.UUID):
        return value.bytes
    if isinstance(value, dt.datetime):
        return (value.replace(tzinfo=value.tzinfo or dt.UTC) - EPOCH) // dt.timedelta(microseconds=1)
    if isinstance(value, dt.date):
        return (value - EPOCH.date()).days
    if isinstance(value, dt.time):
        return ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond
    if isinstance(value, dt.timedelta):
        months, days, nanos = ours
        years = int(months / 12)  # psycopg counts 365 days for 12 months, 30 for one
        total = days + 365 * years + 30 * (months - 12 * years)
        if abs(total) > dt.timedelta.max.days:
            return SKIPPED
        return ours if value == dt.timedelta(days=total, microseconds=nanos // 1000) else value
    return as_bytes(value, ours, kind)


def as_bytes(value: Any, ours: Any, kind: int) -> Any:
    """Compare a type that psycopg does not know: it gives the bytes."""
    if isinstance(value, bytes) and isinstance(ours, int):
        return int.from_bytes(value, "big")
    if isinstance(value, bytes) and isinstance(ours, str):
        return value.decode() if ours == value.decode() else value.removeprefix(b"\1").decode()
    return value


@every_framing
@pytest.mark.parametrize(("row", "sql", "arrow", "wanted"), QUERIES, ids=lambda value: str(value)[:10])
def test_types_of_statements(row: str, sql: str, arrow, wanted, framing: str, pool, memory) -> None:
    table = read(pool, memory, sql, framing=framing)
    assert table.schema.field(0).type == arrow
    assert oracle.canonical(table.column(0)) == wanted


@every_framing
@pytest.mark.parametrize(("row", "fields", "arrow", "wanted"), BY_HAND, ids=lambda value: str(value)[:10])
def test_types_that_this_server_does_not_send(row: str, fields, arrow, wanted, framing: str) -> None:
    oid = next(known.oid for known in registry.ROWS if known.name == row)
    table = wire.decode([Column("v", oid)], wire.reply([[field] for field in fields], framing), framing)
    assert table.schema.field(0).type == arrow
    assert oracle.canonical(table.column(0)) == wanted


@every_framing
def test_a_type_that_nobody_knows(framing: str) -> None:
    """Its bytes, and its name."""
    column = Column("v", 70_000, type_name="blob", send="blob_send")
    table = wire.decode([column], wire.reply([[b"\0\xff"], [None], [b""]], framing), framing)
    assert table.schema.field(0).type == pa.opaque(pa.binary(), "blob", "PostgreSQL")
    assert oracle.canonical(table.column(0)) == [b"\0\xff", None, b""]


@every_framing
def test_xml(framing: str, postgres_tls, memory) -> None:
    """PostgreSQL 17's build has libxml."""
    pool = ConnectionPool(postgres_tls.dsn())
    sql = "select v from (values (1, xml '<a>é😀</a>'), (2, null), (3, xml '')) as t(row, v) order by row"
    assert oracle.canonical(read(pool, memory, sql, framing=framing).column(0)) == ["<a>é😀</a>", None, ""]
    pool.close()


def test_every_row_of_the_registry_is_exercised() -> None:
    """A new row without a case fails here."""
    rows = {row.name for row in (*registry.ROWS, registry.ENUM, registry.AS_TEXT, registry.UNKNOWN)}
    cases = {case.row for case in CASES} | {row for row, *_ in (*QUERIES, *BY_HAND)} | {"xml", "(anything else)"}
    assert cases == rows


def test_registry_and_catalog_agree(database) -> None:
    """Names belong to their OIDs, and what is read in binary can be sent."""
    found = dict(database.execute("select oid::int8, typname from pg_type where typnamespace = 11").fetchall())
    sends = dict(database.execute("select oid::int8, typsend <> 0 from pg_type").fetchall())
    for row in registry.ROWS:
        if row.oid in found:
            assert found[row.oid] == row.name
            assert sends[row.oid] or row.cast
        else:
            assert row.oid is None or row.name == "regdatabase"


def test_every_builtin_scalar_is_readable(database, pool, memory) -> None:
    """NULL of every base type, enum, range and composite that the catalog has: a schema, both framings."""
    names = database.execute(
        "select format_type(oid, null) from pg_type where typtype in ('b', 'r', 'm', 'e') and typisdefined order by 1"
    ).fetchall()
    assert len(names) > 150
    columns = ", ".join(f"null::{name} as c{index}" for index, (name,) in enumerate(names))
    for framing in wire.FRAMINGS:
        table = read(pool, memory, f"select {columns} from generate_series(1, 3)", framing=framing)
        assert table.num_rows == 3
        assert all(column.null_count == 3 for column in table.columns)


def test_metadata_names_the_type(scratch, pool, memory) -> None:
    scratch.execute("create table scratch.t (a numeric(10,2), b scratch.mood, c scratch.price not null)")
    schema = read(pool, memory, "select a, b, c, 'x' as d, inet '::' as e from scratch.t").schema
    assert [field.metadata[b"pg:type"] for field in schema] == [
        b"numeric(10,2)", b"scratch.mood", b"numeric(10,2)", b"text", b"inet",
    ]  # fmt: skip
    assert schema.field("e").metadata[b"pg:cast"] == b"text"


def test_names_need_not_be_unique_or_plain(pool, memory) -> None:
    for framing in wire.FRAMINGS:
        sql = 'select 1 as a, 2 as a, 3 as "é "" , ;", point \'(1,2)\' as a'
        table = read(pool, memory, sql, framing=framing)
        assert table.column_names == ["a", "a", 'é " , ;', "a"]
        assert [column.to_pylist() for column in table.columns] == [[1], [2], [3], ["(1,2)"]]


@every_framing
def test_widest_result(framing: str, pool, memory) -> None:
    """PostgreSQL's limit is 1,664 columns; a tiny batch then holds a row or two."""
    sql = (
        "select "
        + ", ".join(f"{index} + g as c{index}" for index in range(1664))
        + " from generate_series(1, 5) g"
    )
    for batch_bytes in (16 << 10, 1 << 20):
        table = read(pool, memory, sql, framing=framing, batch_bytes=batch_bytes)
        assert table.num_columns == 1664
        assert table.column(1663).to_pylist() == [1664, 1665, 1666, 1667, 1668]


def test_plan_of_every_row_has_buffers_on_boundaries() -> None:
    """Arrow's alignment, and no two buffers overlap, whatever the row count."""
    columns = [Column(row.name, row.oid or 25, typmod=655366 if row.oid == 1700 else -1) for row in registry.ROWS]
    planned = plan(columns)
    for rows in (1, 7, 8, 9, 255, 256, 257, 1000):
        table, end = planned.arrange(rows)
        places = sorted([*table[:, 10].tolist(), *table[:, 11].tolist(), end])
        assert all(place % 64 == 0 for place in places)
        assert len(set(places)) == 2 * len(columns) + 1
