"""Bulk ingestion: every mode, every type that is read comes back as it was, all or nothing."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid

import psycopg
import pyarrow as pa
import pytest
from adbc_driver_flightsql import dbapi

import pgflight
from flight_sql.proto import flight_sql_pb2 as pb
from tests.flight_server.sql.rpc import RawClient
from tests.helpers.server import ServerProcess

ROWS = pa.table({"id": [1, 2, 3], "name": ["a", None, "ü"]})


def loaded(database: psycopg.Connection, table: str = "scratch.made") -> list[tuple[object, ...]]:
    return database.execute(f"select * from {table} order by 1").fetchall()


def ingest(writer: dbapi.Connection, rows: pa.Table, mode: str, **options: object) -> int:
    with writer.cursor() as cursor:
        return cursor.adbc_ingest("made", rows, mode=mode, **{"db_schema_name": "scratch", **options})


def test_modes(writer: dbapi.Connection, database: psycopg.Connection) -> None:
    with pytest.raises(dbapi.Error, match="42P01"):
        ingest(writer, ROWS, "append")
    assert ingest(writer, ROWS, "create") == 3
    expected = [(1, "a"), (2, None), (3, "ü")]
    assert loaded(database) == expected
    with pytest.raises(dbapi.Error, match="42P07"):
        ingest(writer, ROWS, "create")
    assert ingest(writer, ROWS.slice(0, 1), "append") == 1
    assert ingest(writer, ROWS.slice(0, 1), "create_append") == 1
    assert len(loaded(database)) == 5
    assert ingest(writer, ROWS, "replace") == 3
    assert loaded(database) == expected


def test_all_or_nothing(writer: dbapi.Connection, database: psycopg.Connection) -> None:
    """A table that was there stays, also when it was to be replaced."""
    database.execute("create table scratch.made (id int primary key)")
    database.execute("insert into scratch.made values (7)")
    wrong = pa.table({"id": [*range(100_000), 5]})
    for mode in ("append", "replace"):
        rows = wrong if mode == "append" else pa.table({"id": pa.array([{"a": 1}])})
        with pytest.raises(dbapi.Error, match=r"23505|no type"):
            ingest(writer, rows, mode)
        assert loaded(database) == [(7,)]
    with pytest.raises(dbapi.Error, match=r"row 1, column 'id'"):
        ingest(writer, pa.table({"id": [1, 2**40]}), "append")
    with pytest.raises(dbapi.Error, match="42703"):
        ingest(writer, pa.table({"other": [1]}), "append")
    assert loaded(database) == [(7,)]


def test_in_the_transaction_of_the_connection(writable: ServerProcess, database: psycopg.Connection) -> None:
    with dbapi.connect(writable.uri) as connection:
        ingest(connection, ROWS, "create")
        with connection.cursor() as cursor:
            cursor.execute("select count(*) from scratch.made")
            assert cursor.fetchall() == [(3,)]
        connection.rollback()
        assert database.execute("select to_regclass('scratch.made')").fetchone() == (None,)
        ingest(connection, ROWS, "create")
        with connection.cursor() as cursor:
            cursor.adbc_ingest("temporary", ROWS, mode="create", temporary=True)
            cursor.execute("select count(*) from temporary")
            assert cursor.fetchall() == [(3,)]
        connection.commit()
    assert len(loaded(database)) == 3


def test_temporary_tables_need_a_transaction(writer: dbapi.Connection, database: psycopg.Connection) -> None:
    with pytest.raises(dbapi.Error, match="temporary"):
        ingest(writer, ROWS, "create", temporary=True, db_schema_name=None)


def test_what_is_read_can_be_loaded(
    writable: ServerProcess, writer: dbapi.Connection, database: psycopg.Connection
) -> None:
    """Read, loaded into a new table, read again: the same types, the same values."""
    database.execute("create type scratch.mood as enum ('sad', 'ok')")
    database.execute(
        """
        create table scratch.source as select g::int2 as small, g::int8 as big, (g * 1.25)::numeric(12, 4) as amount,
            g::float4 as f4, g::float8 / 3 as f8, g % 2 = 0 as flag, ('text ' || g)::varchar(20) as label,
            chr(65 + g)::char(3) as padded, decode(lpad(to_hex(g), 2, '0'), 'hex') as raw,
            date '2020-01-01' + g as day, time '10:00' + g * interval '1 second' as clock,
            timestamp '2020-01-01' + g * interval '1 us' as at, timestamptz '2020-01-01' + g * interval '1 us' as atz,
            g * interval '1 day 2 us' as span, gen_random_uuid() as code, jsonb_build_object('g', g) as doc,
            (case when g % 2 = 0 then 'sad' else 'ok' end)::scratch.mood as mood, array[g, null, g + 1] as list,
            null::text as nothing
        from generate_series(1, 50) g
        """
    )
    with pgflight.connect(writable.uri) as client:
        rows = client.table("scratch.source").to_arrow()
        ingest(writer, rows, "create")
        again = client.table("scratch.made").to_arrow()
    types = "select attname, format_type(atttypid, atttypmod) from pg_attribute where attrelid = '{}'::regclass and attnum > 0"
    assert (
        database.execute(types.format("scratch.made")).fetchall()
        == database.execute(types.format("scratch.source")).fetchall()
    )
    assert again.equals(rows)
    difference = "select count(*) from (select t::text from {} t except select t::text from {} t) d"
    for pair in (("scratch.source", "scratch.made"), ("scratch.made", "scratch.source")):
        assert database.execute(difference.format(*pair)).fetchone() == (0,)


def test_types_that_postgresql_reads_as_text(writer: dbapi.Connection, database: psycopg.Connection) -> None:
    """Into columns of types that have no binary form here: its own input functions decide."""
    database.execute(
        "create table scratch.made (n numeric, r int4range, p point, i inet, b bit(3), m money, l text[], e text)"
    )
    rows = pa.table(
        {
            "n": ["1.50", "NaN"], "r": ["[1,5)", None], "p": ["(1,2)", None], "i": ["10.0.0.1", "::1"],
            "b": ["101", None], "m": ["$3.00", None], "l": [["a", None, 'q"'], []], "e": ["", None],
        }
    )  # fmt: skip
    ingest(writer, rows, "append")
    found = database.execute(
        "select n::text, r::text, p::text, i::text, b::text, l, e from scratch.made"
    ).fetchall()
    assert found == [
        ("1.50", "[1,5)", "(1,2)", "10.0.0.1/32", "101", ["a", None, 'q"'], ""),
        ("NaN", None, None, "::1/128", None, [], None),
    ]


def test_names_are_quoted_and_types_looked_up(raw_writer: RawClient, database: psycopg.Connection) -> None:
    field = pa.field('a"b', pa.int64(), metadata={"pg:type": "int8); drop table scratch.x; --"})
    told = pa.field("t", pa.string(), metadata={"pg:type": "character varying(7)"})
    rows = pa.table({'a"b': [1], "t": ["x"]}, schema=pa.schema([field, told]))
    options = pb.CommandStatementIngest.TableDefinitionOptions(if_not_exist=1, if_exists=1)
    command = pb.CommandStatementIngest(table='odd " name', schema="scratch", table_definition_options=options)
    answer = pb.DoPutUpdateResult.FromString(raw_writer.put(command, rows) or b"")
    assert answer.record_count == 1
    assert database.execute('select "a""b", t from scratch."odd "" name"').fetchall() == [(1, "x")]
    shown = database.execute("select format_type(atttypid, atttypmod) from pg_attribute where attname = 't' "
                             "and attrelid = 'scratch.\"odd \"\" name\"'::regclass").fetchone()  # fmt: skip
    assert shown == ("character varying(7)",)


def test_new_columns_have_the_types_that_were_read(
    writer: dbapi.Connection, writable: ServerProcess, database: psycopg.Connection
) -> None:
    """Modifiers, fields of intervals and brackets in names included."""
    database.execute("create type scratch.\"a(b\" as enum ('x')")
    names = (
        "bpchar", "bit", "bit(5)", "char(3)", "varchar(7)", "varchar(7)[]", "numeric", "numeric(10,2)",
        "numeric(10,2)[]", "timestamp(3)", "timestamptz(3)", "time(3)", "timetz(3)", "interval day to second(3)",
        "interval year to month", "bit varying(5)", '"char"', "uuid[]", 'scratch."a(b"',
    )  # fmt: skip
    columns = ", ".join(f"c{number} {name}" for number, name in enumerate(names))
    database.execute(f"create table scratch.source ({columns}); insert into scratch.source default values")
    with pgflight.connect(writable.uri) as client:
        rows = client.table("scratch.source").to_arrow()
    assert ingest(writer, rows, "create") == 1
    shown = "select array_agg(format_type(atttypid, atttypmod) order by attnum) from pg_attribute where attnum > 0 and "
    source, made = (
        database.execute(f"{shown} attrelid = 'scratch.{table}'::regclass").fetchone()
        for table in ("source", "made")
    )
    assert made == source


def test_values_of_python(writer: dbapi.Connection, database: psycopg.Connection) -> None:
    code = uuid.UUID(int=7)
    rows = pa.table(
        {
            "d": pa.array([decimal.Decimal("-0.001"), None], pa.decimal128(5, 3)),
            "t": pa.array([dt.time(1, 2, 3), None], pa.time32("ms")),
            "u": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([code.bytes, None], pa.binary(16))),
            "h": pa.array([1.5, None], pa.float16()),
            "w": pa.array([dt.timedelta(seconds=1), None], pa.duration("ns")),
        }
    )
    ingest(writer, rows, "create")
    assert loaded(database)[0] == (decimal.Decimal("-0.001"), dt.time(1, 2, 3), code, 1.5, dt.timedelta(seconds=1))
