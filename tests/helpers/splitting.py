"""Tables that are worth splitting, though small, and ways to ask how a statement is read and whether rightly."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, LiteralString, cast
from uuid import UUID

import psycopg
import pyarrow as pa
from pyarrow import flight

from demo.postgres import EmbeddedPostgres
from flight_server.reading.planning import describe
from flight_server.reading.split import Division, divide
from flight_server.request import ReadRequest
from transport.opening import SessionOptions
from transport.pool import ConnectionPool
from transport.session import Session

ROWS = 2_000
"""At a tenth of each page filled, that is some 700 pages: enough for ranges."""
COLUMNS = """id int8 not null, k int4, name text, n numeric(10, 2), f float8, ts timestamptz, plain timestamp,
        day date, arr int[], u uuid, ok bool, b char(6), v varchar(20), raw bytea, now text, upper text, "Größe [x]" int, "(" text,
        j jsonb, mood split.mood, pad text"""
TABLES = f"""
    create schema split;
    create type split.mood as enum ('happy', 'sad');
    create table split.t ({COLUMNS}) with (fillfactor = 10, autovacuum_enabled = off);
    insert into split.t select g, g % 10, case when g % 5 > 0 then 'n' || g % 7 end, g / 100.0, g / 8.0,
        timestamptz '2024-01-01 00:00+00' + g * interval '1 hour', timestamp '2024-01-01' + g * interval '1 hour',
        date '2024-01-01' + g % 365, array[g, g % 3], md5(g::text)::uuid, g % 2 = 0, 'b' || g % 4, 'v' || g % 3,
        decode(lpad(to_hex(g), 8, '0'), 'hex'), 'NOW ' || g % 2, 'U' || g % 2, g % 11, ')' || g % 2, jsonb_build_object('g', g),
        case when g % 2 = 0 then 'sad' else 'happy' end::split.mood, repeat('x', 60)
    from generate_series(1, {ROWS}) g;
    analyze split.t;

    create table split.p (id int8, day date, name text, pad text) partition by range (day);
    create table split.p1 (id int8, day date, name text, pad text) with (fillfactor = 10);
    create table split.p2 (pad text, name text, gone int, day date, id int8) with (fillfactor = 10);
    alter table split.p2 drop column gone;
    create table split.p3 (id int8, day date, name text, pad text) with (fillfactor = 10);
    alter table split.p attach partition split.p1 for values from ('2024-01-01') to ('2024-07-01');
    alter table split.p attach partition split.p2 for values from ('2024-07-01') to ('2024-10-01');
    alter table split.p attach partition split.p3 for values from ('2024-10-01') to ('2025-01-01');
    insert into split.p select g, date '2024-01-01' + g % 366, 'n' || g % 7, repeat('x', 60) from generate_series(1, 6000) g;
    create table split.q (id int8, name text, pad text) partition by hash (id);
    create table split.q0 partition of split.q for values with (modulus 2, remainder 0) with (fillfactor = 10);
    create table split.q1 partition of split.q for values with (modulus 2, remainder 1) with (fillfactor = 10);
    insert into split.q select id, name, pad from split.t;

    create table split."T""ä [1].x" with (fillfactor = 10) as select id, name, pad from split.t;
    create table split."tÄ" with (fillfactor = 10) as select id, name, pad from split.t;
    create table split.one as select 1 as a;

    create function split.kept(int8) returns int8 language plpgsql immutable as 'begin return $1 * 2; end';
    create function split.inlined(int8) returns int8 language sql immutable as 'select $1 * 2';
    create function split.promised(int8) returns int8 language plpgsql stable as 'begin return $1 * 2; end';
    create function split.hidden(int8) returns int8 language sql stable as 'select $1 * 2';
    create function split.defaulted(int8, at timestamptz default now()) returns int8
        language plpgsql immutable as 'begin return $1; end';
    create function split.dated(int8) returns date language plpgsql immutable as 'begin return null; end';
    create function split.of_date(date) returns int4 language sql immutable as 'select 1';
    create function split.of_mood(split.mood) returns int4 language sql immutable as 'select 1';
    create function split.of_table(regclass) returns int4 language sql immutable as 'select 1';
    create function split.many(variadic int8[]) returns int8
        language plpgsql immutable as 'begin return $1[1]; end';
"""


@contextmanager
def tables_in(postgres: EmbeddedPostgres) -> Iterator[None]:
    """Make schema `split` with its tables, for as long as the context lasts."""
    with postgres.connect() as connection:
        connection.execute(as_written(TABLES))
        try:
            yield
        finally:
            connection.execute("drop schema split cascade")


def as_written(sql: str) -> LiteralString:
    """Let psycopg take a statement that a test has put together."""
    return cast("LiteralString", sql)


def command(sql: str, **options: object) -> bytes:
    """Return the request for a statement, for four streams if nothing else is said."""
    return json.dumps({"sql": sql, "options": {"streams": 4, **options}}).encode()


def scan_of(client: flight.FlightClient, asked: bytes) -> dict[str, Any]:
    """Return what GetFlightInfo says about how it is read."""
    return json.loads(client.get_flight_info(flight.FlightDescriptor.for_command(asked)).app_metadata)


def division(pool: ConnectionPool, sql: str) -> Division:
    """Return how a statement is cut."""
    request = ReadRequest(sql=sql)
    with Session(pool, SessionOptions()) as session:
        return divide(session, request, describe(session, request), 4)


def rows(found: Iterable[Iterable[object]]) -> list[str]:
    """Return rows in one form and order, whether they come from Arrow or from psycopg."""
    return sorted(repr([_plain(value) for value in row]) for row in found)


def rows_of(table: pa.Table) -> list[str]:
    """Return an Arrow table's rows, in the form of `rows`."""
    return rows(zip(*(column.to_pylist() for column in table.columns), strict=True))


def read(client: flight.FlightClient, sql: str, streams: int) -> list[str]:
    """Read a statement, in the form of `rows`."""
    return rows_of(client.do_get(flight.Ticket(command(sql, streams=streams, nested="text"))).read_all())


def require_same(client: flight.FlightClient, connection: psycopg.Connection, sql: str) -> int:
    """Require the same rows of four streams, of one and of psycopg; return how many they are."""
    expected = rows(connection.execute(as_written(sql)).fetchall())
    assert read(client, sql, 4) == expected
    assert read(client, sql, 1) == expected
    return len(expected)


def _plain(value: object) -> object:
    match value:
        case bool():
            return value
        case int() | UUID():
            return str(value)
        case Decimal():
            return format(value, "f")
        case datetime(tzinfo=zone) if zone is not None:
            return value.astimezone(UTC)
        case list():
            return "{" + ",".join(str(item) for item in value) + "}"
        case dict():
            return json.dumps(value)
    return value
