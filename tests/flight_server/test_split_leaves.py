"""Splitting by leaves: partitions in another order, ruled out, or computed otherwise; conditions; endpoints."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psycopg
import pyarrow as pa
import pytest
from google.protobuf.wrappers_pb2 import BytesValue
from pyarrow import flight

from demo.postgres import EmbeddedPostgres
from tests.helpers.splitting import (
    as_written,
    command,
    division,
    require_same,
    rows,
    rows_of,
    scan_of,
    tables_in,
)
from transport.pool import ConnectionPool


@pytest.fixture(scope="module", autouse=True)
def tables(postgres: EmbeddedPostgres) -> Iterator[None]:
    with tables_in(postgres):
        yield


@pytest.fixture
def oracle(postgres: EmbeddedPostgres) -> Iterator[psycopg.Connection]:
    """A connection that sees what the server's connections see."""
    with postgres.connect() as connection:
        yield connection


@pytest.mark.parametrize(
    ("table", "where"),
    [("t", "id + 1 > 5 and length(name) = 2"), ("p", "id + 1 > 5 and length(name) = 2"), ("q", "length(name) = 2 -- x"),
     ("p", "upper(p.name) = 'N1'"), ("p", "day < '2024-08-01'"), ("q", "q.name ~ '^n' or q.id @@@ 1 is null")],
)  # fmt: skip
def test_conditions_of_table_requests(
    client: flight.FlightClient, oracle: psycopg.Connection, table: str, where: str
) -> None:
    """Columns are read by name, whichever order a partition has them in; PostgreSQL's own grammar is enough."""
    oracle.execute(
        """
        create or replace function split.odd(int8, int4) returns bool language plpgsql immutable as 'begin return $1 % 2 = $2; end';
        drop operator if exists public.@@@ (int8, int4);
        create operator public.@@@ (leftarg = int8, rightarg = int4, function = split.odd)
        """
    )
    parts = {"table": f"split.{table}", "where": where, "columns": ["name", "id"], "options": {"streams": 4}}
    asked = json.dumps(parts).encode()
    assert scan_of(client, asked)["streams"] > 1
    found = client.do_get(flight.Ticket(asked)).read_all()
    expected = oracle.execute(as_written(f"select name, id from split.{table} where {where}")).fetchall()
    assert rows_of(found) == rows(expected)
    assert expected
    oracle.execute("drop operator public.@@@ (int8, int4)")


@pytest.mark.parametrize(
    "where",
    ["1 = 1) or (1 = 1", "true) union all select * from split.q where (true", "true) limit (5", "id = (select 5)",
     "ts < now()", "true) and (id > 5", "id > 5 -- ", "id > 5 /* ) */"],
)  # fmt: skip
def test_conditions_that_are_more(client: flight.FlightClient, where: str) -> None:
    """A condition may close its own brackets: what comes out is what PostgreSQL makes of it, split or not."""
    asked, whole = (
        json.dumps({"table": "split.q", "where": where, "options": {"streams": streams}}).encode()
        for streams in (4, 1)
    )
    if "ts" in where:
        asked, whole = (one.replace(b"split.q", b"split.t") for one in (asked, whole))
    read = [client.do_get(flight.Ticket(one)).read_all() for one in (asked, whole)]
    assert read[0].num_rows == read[1].num_rows
    assert read[0].sort_by("id").equals(read[1].sort_by("id"))
    scan = scan_of(client, asked)
    assert (scan["streams"] > 1) == (where.startswith(("true) and", "id > 5"))), scan


@pytest.mark.parametrize(
    "sql",
    ["select id + 1, name from split.p where day < '2024-08-01'", "select p.name || p.id from split.p", "select * from split.q",
     "select * from split.p where day < '2024-06-01'", "select upper(name), id from split.t where id % 2 = 1"],
)  # fmt: skip
def test_several_endpoints(client: flight.FlightClient, oracle: psycopg.Connection, sql: str) -> None:
    """What was proven for the ticket's issuer is read alike by whoever redeems it."""
    asked = command(sql, endpoints=3, streams=1)
    info = client.get_flight_info(flight.FlightDescriptor.for_command(asked))
    try:
        assert len(info.endpoints) > 1
        found = pa.concat_tables([client.do_get(endpoint.ticket).read_all() for endpoint in info.endpoints])
    finally:
        body = BytesValue(value=info.serialize()).SerializeToString()
        list(client.do_action(flight.Action("CancelFlightInfo", body)))
    expected = oracle.execute(as_written(sql)).fetchall()
    assert rows_of(found) == rows(expected)


def test_partitions_that_bounds_rule_out_are_not_read(pool: ConnectionPool) -> None:
    assert [leaf.name for leaf in division(pool, "select id from split.p").leaves] == ["p1", "p2", "p3"]
    pruned = division(pool, "select id from split.p where day < '2024-08-01'")
    assert [leaf.name for leaf in pruned.leaves] == ["p1", "p2"]
    assert not any('"p3"' in part.sql for part in pruned.parts)
    assert all('FROM ONLY "split"."p' in part.sql.replace("from", "FROM") for part in pruned.parts)
    # The one whose columns lie in another order is not among those that are left.
    assert [leaf.name for leaf in division(pool, "select * from split.p where day < '2024-06-01'").leaves] == [
        "p1"
    ]


def test_an_index_is_not_given_up(
    postgres: EmbeddedPostgres, client: flight.FlightClient, database: psycopg.Connection
) -> None:
    """One partition that PostgreSQL would rather find by an index is enough."""
    database.execute("create index q0_id on split.q0 (id); create index q1_id on split.q1 (id); analyze split.q")
    try:
        asked = command("select id, upper(name) from split.q where id = 5 or id = 7")
        assert "Scan" in scan_of(client, asked)["why"]
        assert scan_of(client, asked)["streams"] == 1
        asked = json.dumps({"table": "split.q", "where": "id = 5 or id = 7", "options": {"streams": 4}}).encode()
        assert scan_of(client, asked)["streams"] == 1
        assert require_same(client, database, "select id, upper(name) from split.q where id = 5 or id = 7") == 2
    finally:
        database.execute("drop index split.q0_id, split.q1_id")


def test_virtual_columns_that_partitions_compute_differently(
    client: flight.FlightClient, database: psycopg.Connection
) -> None:
    """The table that a statement names says how its virtual columns are computed, not the partition."""
    database.execute(
        """
        create table scratch.g (id int8, pad text, twice int8 generated always as (id * 2) virtual) partition by hash (id);
        create table scratch.g0 (id int8, pad text, twice int8 generated always as (id * 3) virtual) with (fillfactor = 10);
        alter table scratch.g attach partition scratch.g0 for values with (modulus 1, remainder 0);
        insert into scratch.g select g, repeat('x', 60) from generate_series(1, 3000) g;
        create table scratch.v (id int8, pad text, twice int8 generated always as (id * 2) virtual) with (fillfactor = 10);
        insert into scratch.v select g, repeat('x', 60) from generate_series(1, 3000) g;
        """
    )
    for asked in (
        command("select id, twice from scratch.g"),
        b'{"table": "scratch.g", "options": {"streams": 4}}',
    ):
        scan = scan_of(client, asked)
        assert (scan["streams"], scan["why"]) == (
            1,
            "PostgreSQL computes something else for a part than for the whole",
        )
        table = client.do_get(flight.Ticket(asked)).read_all()
        assert table["twice"].to_pylist() == [2 * value for value in table["id"].to_pylist()]
    assert scan_of(client, command("select id, twice from scratch.v"))["streams"] > 1
    assert require_same(client, database, "select id, twice from scratch.v where twice > 10") > 2000


def test_small_partitions_do_not_hinder(client: flight.FlightClient, database: psycopg.Connection) -> None:
    """PostgreSQL would rather read them from beginning to end, which is as right."""
    database.execute(
        """
        create table scratch.s (id int8 primary key, pad text) partition by range (id);
        create table scratch.s0 partition of scratch.s for values from (0) to (5000) with (fillfactor = 10);
        create table scratch.s1 partition of scratch.s for values from (5000) to (5010);
        create table scratch.s2 partition of scratch.s for values from (6000) to (7000);
        create table scratch.s3 partition of scratch.s default;
        insert into scratch.s select g, repeat('x', 60) from generate_series(0, 5009) g;
        insert into scratch.s select g, '' from generate_series(9000, 9999) g;
        analyze scratch.s
        """
    )
    for sql in ("select id, pad from scratch.s", "select id + 1 from scratch.s where id > 100 and id % 2 = 0"):
        assert scan_of(client, command(sql))["streams"] > 1, scan_of(client, command(sql))
        assert require_same(client, database, sql) > 2000
    assert scan_of(client, b'{"table": "scratch.s", "options": {"streams": 4}}')["streams"] > 1
