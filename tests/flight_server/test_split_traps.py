"""Splitting where somebody has made traps: functions, operators, types and casts that are not what they seem."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from pyarrow import flight

from demo.postgres import EmbeddedPostgres
from tests.helpers.server import ServerProcess
from tests.helpers.splitting import as_written, command, division, read, require_same, scan_of, tables_in
from transport.pool import ConnectionPool


@pytest.fixture(scope="module", autouse=True)
def tables(postgres: EmbeddedPostgres) -> Iterator[None]:
    with tables_in(postgres):
        yield


@pytest.fixture
def hostile(postgres: EmbeddedPostgres) -> Iterator[psycopg.Connection]:
    """A schema in which somebody has made traps, and a connection that looks there first."""
    with postgres.connect() as connection:
        connection.execute("create schema evil; set search_path = evil, pg_catalog, split")
        yield connection
        connection.execute("drop schema evil cascade")


TRAPS = [
    # A function of the same name, for another type, in a schema on the path or not.
    ("create function evil.upper(int8) returns int8 language plpgsql volatile as 'begin return 1; end'",
     "select upper(name) from split.t", "the select list uses upper(), which is volatile"),
    ("create function evil.upper(text) returns text language plpgsql volatile as 'begin return random(); end'",
     "select pg_catalog.upper(name) from split.t", "upper(), which is volatile"),
    ("create function evil.md5(text, text default now()::text) returns text language plpgsql immutable as 'begin return $2; end'",
     "select md5(name, 'x') from split.t where md5(name) <> 'x'", None),
    ("create function evil.left(text, variadic int[]) returns text language plpgsql stable as 'begin return $1; end'",
     "select left(name, 1) from split.t", "left(), which is stable"),
    ("create aggregate evil.lower(int8) (sfunc = int8pl, stype = int8)",
     "select lower(name) from split.t", "lower(), which is an aggregate"),
    ("create function evil.replace(text, text, text) returns setof text language sql immutable as 'select $1'",
     "select pg_catalog.replace(name, 'n', 'm') from split.t", "replace(), which returns sets"),
    # What was inlined is looked at as it is.
    ("create function evil.peek(int8) returns bool language sql volatile as 'select $1 > random()'",
     "select id from split.t where evil.peek(id) or id > 0", "the condition uses random(), which is volatile"),
    # Operators: another meaning of one that everybody knows.
    ("create function evil.eq(int8, int4) returns bool language plpgsql volatile as 'begin return $1 % 2 = 0; end';"
     "create operator evil.= (leftarg = int8, rightarg = int4, function = evil.eq)",
     "select id from split.t where id = 5", "the condition uses =, which is not immutable for all types"),
    ("create function evil.plus(int8, int4) returns int8 language plpgsql stable as 'begin return $1; end';"
     "create operator evil.+ (leftarg = int8, rightarg = int4, function = evil.plus)",
     "select id + 1 from split.t", "the select list uses +, which is not immutable for all types"),
    ("create function evil.eq(int8, int4) returns bool language plpgsql volatile as 'begin return true; end';"
     "create operator evil.= (leftarg = int8, rightarg = int4, function = evil.eq)",
     "select nullif(id, 5), case id when 6 then 1 end from split.t", "the select list uses =, which is not immutable"),
    ("create function evil.minus(int8) returns int8 language plpgsql volatile as 'begin return $1; end';"
     "create operator evil.- (rightarg = int8, function = evil.minus)",
     "select - id from split.t", "the select list uses -, which is not immutable for all types"),
    ("create function evil.at(int8, int8) returns timestamptz language plpgsql immutable as 'begin return null; end';"
     "create operator evil.@@@ (leftarg = int8, rightarg = int8, function = evil.at)",
     "select 'x' || (id @@@ id) from split.t", "the select list uses @@@, which is not immutable for all types"),
    ("create function evil.like(split.mood, text) returns bool language plpgsql volatile as 'begin return true; end';"
     "create operator evil.~~ (leftarg = split.mood, rightarg = text, function = evil.like)",
     "select id from split.t where mood like 's%'", "the condition uses ~~, which is not immutable for all types"),
    # Types: a name that stands for another, a cast that nobody sees.
    ("create domain evil.uuid as date", "select id from split.t where '2024-01-01'::uuid = '2024-01-01'::uuid",
     "uses a value, whose type has the name of one of PostgreSQL's own"),
    ("create type evil.bytea as enum ('a')", "select id, 'a'::bytea from split.t",
     "uses a value, whose type has the name of one of PostgreSQL's own"),
    ("create domain evil.today as date check (value < now())", "select id, null::today from split.t", "the statement casts to today"),
    ("create type evil.box8 as (v int8);"
     "create function evil.box8(int8) returns evil.box8 language plpgsql volatile as 'begin return row(random() * 9); end';"
     "create cast (int8 as evil.box8) with function evil.box8(int8) as implicit;"
     "create function evil.open(evil.box8) returns int8 language plpgsql immutable as 'begin return $1.v; end'",
     "select open(id) is null from split.t", "open(), which can take evil.box8"),
    ("create type evil.box8 as (v int8);"
     "create function evil.box8(int8) returns evil.box8 language plpgsql volatile as 'begin return row(random() * 9); end';"
     "create cast (int8 as evil.box8) with function evil.box8(int8) as implicit;"
     "create function evil.never(evil.box8, int8) returns bool language plpgsql immutable as 'begin return $1 is null; end';"
     "create operator evil.@@@ (leftarg = evil.box8, rightarg = int8, function = evil.never)",
     "select id @@@ 1::int8 from split.t", "box8 is not immutable"),
    # What would hide functions from a catalog that is asked carelessly.
    ("create function evil.eq(name, text) returns bool language plpgsql immutable as 'begin return false; end';"
     "create operator evil.= (leftarg = name, rightarg = text, function = evil.eq)",
     "select random() < id from split.t", "the select list uses random(), which is volatile"),
    # A table of that name in a schema that is looked at first.
    ("create view evil.q as select * from split.q", "select id + 1 from q", "it is no table"),
]  # fmt: skip


@pytest.mark.parametrize(("trap", "sql", "why"), TRAPS)
def test_traps(
    postgres: EmbeddedPostgres, hostile: psycopg.Connection, trap: str, sql: str, why: str | None
) -> None:
    hostile.execute(as_written(trap))
    pool = ConnectionPool(postgres.dsn(options="-c search_path=evil,pg_catalog,split"))
    try:
        found = division(pool, sql)
    finally:
        pool.close()
    assert not found.parts
    assert why is None or why in found.why


def test_names_are_looked_up_as_postgresql_does(postgres: EmbeddedPostgres, hostile: psycopg.Connection) -> None:
    """A table and an operator that hide others, harmlessly: the rows are those that PostgreSQL itself gives."""
    hostile.execute(
        """
        create table evil.t with (fillfactor = 10) as select id + 1000000 as id, name, pad from split.t;
        create table evil.q0 with (fillfactor = 10) as select id, name, pad from split.t where false;
        create function evil.plus(int8, int4) returns int8 language plpgsql immutable as 'begin return $1 * 100; end';
        create operator evil.+ (leftarg = int8, rightarg = int4, function = evil.plus);
        """
    )
    with (
        ServerProcess(postgres.dsn(options="-c search_path=evil,pg_catalog,split")) as server,
        flight.connect(server.uri) as client,
    ):
        for sql in (
            "select id + 1, id from t",
            "select id + 1, name from q where q.id + 2 > 900",
            "select id + 1 from split.t",
        ):
            assert scan_of(client, command(sql))["streams"] > 1
            assert require_same(client, hostile, sql) > 1000
        assert read(client, "select id + 1 from t where id = 1000007", 4) == ["['100000700']"]
