"""Parallel reads: one snapshot, every row once; and what may be split at all."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyarrow import flight

from demo.postgres import EmbeddedPostgres
from tests.helpers.server import ServerProcess

ROWS = 60_000


def request(table: str | None = None, sql: str | None = None, **parts: object) -> bytes:
    options = {"streams": 4, **dict(parts.pop("options", {}))}  # type: ignore[call-overload]
    source = {"table": table} if table else {"sql": sql}
    return json.dumps({**source, **parts, "options": options}).encode()


def scan_of(client: flight.FlightClient, command: bytes) -> dict[str, object]:
    info = client.get_flight_info(flight.FlightDescriptor.for_command(command))
    return json.loads(info.app_metadata)


def read(client: flight.FlightClient, command: bytes) -> pa.Table:
    return client.do_get(flight.Ticket(command)).read_all()


@pytest.fixture(scope="module")
def tables(postgres: EmbeddedPostgres) -> Iterator[None]:
    with postgres.connect() as connection:
        connection.execute(
            f"""
            create schema par;
            create table par.t (id int8 not null, name text, ts timestamptz, day date, n numeric(10, 2), pad text);
            alter table par.t set (autovacuum_enabled = off);
            insert into par.t select g, 'n' || g % 7, timestamptz '2024-01-01' + g * interval '1 minute',
                date '2024-01-01' + g % 365, g / 100.0, repeat('x', 100) from generate_series(1, {ROWS}) g;
            create table par.fresh as select * from par.t;
            alter table par.fresh set (autovacuum_enabled = off);
            create index on par.t (id);
            analyze par.t;
            create materialized view par.m as select * from par.t;
            create view par.v as select * from par.t;
            create table par.empty (a int);
            create table par.one_page as select 1 as a;
            create table par.gone as select * from par.t;
            alter table par.gone set (autovacuum_enabled = off);
            delete from par.gone where id > {ROWS // 10};
            create table par.rls as select * from par.t;
            alter table par.rls enable row level security;
            create table par.parent (id int8, name text);
            create table par.child (extra int) inherits (par.parent);
            insert into par.child select g, 'c', 1 from generate_series(1, {ROWS}) g;
            create table par.p (id int8, name text, pad text) partition by hash (id);
            create table par.p0 (pad text, name text, id int8);
            alter table par.p attach partition par.p0 for values with (modulus 3, remainder 0);
            create table par.p1 partition of par.p for values with (modulus 3, remainder 1);
            create table par.p2 partition of par.p for values with (modulus 3, remainder 2);
            insert into par.p select id, name, pad from par.t;
            create function par.f(int8) returns int8 language sql stable as 'select $1';
            """
        )
        yield
        connection.execute("drop schema par cascade")


WHERES = [
    "id > 10", "id between 5 and 50000", "name = 'n3'", "name like 'n%'", "not (id < 100)", "name is not null",
    "id in (1, 2, 3) or name = 'n1'", "day >= '2024-02-01'", "name ~ 'n'", "id + 1 > 5", "id::text > '1'", "ts < '2024-01-15 12:00:00+00'", "n > 1.5",
]  # fmt: skip
UNSAFE = [
    "ts > now() - interval '1 day'", "ts < 'now'", "ts < ('now')", "day = 'today'", "day < current_date", "id > random()",
    "par.f(id) > 10", "ts > day", "id = (select 5)", "exists (select 1)", "name = current_setting('x', true)",
    "ctid > '(1,0)'", "xmin::text = '1'",
]  # fmt: skip


@pytest.mark.parametrize("where", WHERES)
def test_safe_conditions_split(client: flight.FlightClient, tables: None, where: str) -> None:
    for command in (
        request("par.t", where=where),
        request(sql=f"select id, name from par.t where {where}; -- end"),
    ):
        scan = scan_of(client, command)
        assert scan["streams"] == 4, scan
    whole = read(client, request("par.t", where=where, options={"streams": 1}))
    assert read(client, command).num_rows == whole.num_rows
    assert read(client, request("par.t", where=where)).sort_by("id").equals(whole.sort_by("id"))


@pytest.mark.parametrize("where", UNSAFE)
def test_conditions_that_may_differ_between_sessions_do_not(
    client: flight.FlightClient, tables: None, where: str
) -> None:
    scan = scan_of(client, request("par.t", where=where))
    assert scan["streams"] == 1
    assert scan["why"]


@pytest.mark.parametrize(
    "sql",
    [
        "select count(*) from par.t", "select distinct name from par.t", "select id from par.t order by id",
        "select id from par.t limit 5", "select id from par.t offset 5", "select id from par.t union all select 1",
        "select id, row_number() over () from par.t", "select id from par.t group by id", "select random() from par.t",
        "with a as (select * from par.t) select * from a", "select t.id from par.t, par.one_page",
        "select t.id from par.t join par.one_page on true", "select * from (select * from par.t) q",
        "select * from par.v", "select * from par.parent", "select * from par.rls", "select * from par.p",
        "select * from par.t tablesample system (10)", "select * from generate_series(1, 10)", "values (1)",
        "select * from only par.t", "table par.t", "select id from par.t fetch first 1 row only",
        "select id from par.t where id = 5", "select now() from par.t", "select ctid from par.t for share",
    ],
)  # fmt: skip
def test_statements_that_stay_whole(client: flight.FlightClient, tables: None, sql: str) -> None:
    """Aggregates, sorts, joins, limits, views, row security, an index that PostgreSQL prefers: one stream."""
    command = request(sql=sql)
    if "for share" not in sql:
        assert scan_of(client, command)["streams"] == 1


@pytest.mark.parametrize(
    ("sql", "columns"),
    [
        ("select * from par.t", 6),
        ('SELECT id AS "Größe", name FROM par.t AS x WHERE x.id > 0', 2),
        ("select\n id -- comment\n from par.t /* ; where */ where id > 0 -- and false", 1),
        ("select t.* from par.t", 6),
        ("select id, id, id as name from par.t;;", 3),
    ],
)
def test_statements_that_split(client: flight.FlightClient, tables: None, sql: str, columns: int) -> None:
    command = request(sql=sql)
    assert scan_of(client, command)["streams"] == 4
    table = read(client, command)
    assert (table.num_rows, table.num_columns) == (ROWS, columns)
    assert table.schema.equals(client.get_schema(flight.FlightDescriptor.for_command(command)).schema)
    assert pc.count_distinct(table.column(0)).as_py() == ROWS


@pytest.mark.parametrize(
    ("table", "rows", "split"),
    [("t", ROWS, True), ("fresh", ROWS, True), ("m", ROWS, True), ("p", ROWS, True), ("gone", ROWS // 10, True), ("empty", 0, False),
     ("one_page", 1, False), ("v", ROWS, False), ("parent", ROWS, False), ("rls", ROWS, False)],
)  # fmt: skip
@pytest.mark.parametrize("ordered", [False, True])
def test_relations(
    client: flight.FlightClient, tables: None, table: str, rows: int, split: bool, ordered: bool
) -> None:
    """Tables never analysed, materialised views, partitions with another column order, mostly empty tables."""
    command = request(f"par.{table}", options={"ordered": ordered})
    assert (scan_of(client, command)["streams"] == 4) is split
    result = read(client, command)
    assert result.num_rows == rows
    if rows > 1:
        assert pc.count_distinct(result["id"]).as_py() == rows
        assert set(result["name"].unique().to_pylist()) <= {f"n{digit}" for digit in range(7)} | {"c"}
    if ordered and table in ("t", "m", "gone"):
        assert result["id"].to_pylist() == list(range(1, rows + 1))


def test_two_hundred_partitions(client: flight.FlightClient, database: psycopg.Connection) -> None:
    database.execute("create table scratch.many (id int8) partition by range (id)")
    for number in range(200):
        database.execute(
            f"create table scratch.many{number} partition of scratch.many for values from ({number * 10}) to ({number * 10 + 10})"
        )
    database.execute("insert into scratch.many select generate_series(0, 1999)")
    command = request("scratch.many")
    assert scan_of(client, command)["parts"] == 200
    assert sorted(read(client, command)["id"].to_pylist()) == list(range(2000))


def test_a_partition_one_may_not_read_keeps_the_table_whole(
    postgres: EmbeddedPostgres, client: flight.FlightClient, database: psycopg.Connection
) -> None:
    """SELECT on a partitioned table implies nothing for its partitions."""
    with postgres.connect(user="postgres") as superuser:
        superuser.execute(
            """
            create schema secret; create table secret.p (id int8) partition by hash (id);
            create table secret.p0 partition of secret.p for values with (modulus 1, remainder 0);
            insert into secret.p select generate_series(1, 50000);
            grant usage on schema secret to pgflight; grant select on secret.p to pgflight
            """
        )
        try:
            command = request("secret.p")
            assert scan_of(client, command)["streams"] == 1
            assert read(client, command).num_rows == 50_000
        finally:
            superuser.execute("drop schema secret cascade")


def test_growing_while_read(client: flight.FlightClient, database: psycopg.Connection) -> None:
    database.execute("create table scratch.g (id int8, pad text)")
    database.execute("insert into scratch.g select g, repeat('x', 200) from generate_series(1, 20000) g")
    stop = threading.Event()

    def grow() -> None:
        number = 20_000
        while not stop.is_set():
            with database.transaction():
                database.execute(
                    "insert into scratch.g select g, repeat('x', 200) from generate_series(%s::int, %s::int) g",
                    (number + 1, number + 500),
                )
            number += 500

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        for _ in range(10):
            ids = read(client, request("scratch.g"))["id"]
            assert len(ids) % 500 == 0
            assert pc.max(ids).as_py() == len(ids) == pc.count_distinct(ids).as_py()
    finally:
        stop.set()
        writer.join()


def test_errors_and_cancellation_end_all_streams(
    client: flight.FlightClient, database: psycopg.Connection, tables: None
) -> None:
    database.execute(
        "create table scratch.b as select g as id, date 'infinity' as d from generate_series(1, 50000) g"
    )
    with pytest.raises(pa.ArrowInvalid, match="infinite"):
        read(client, request("scratch.b"))
    reader = client.do_get(flight.Ticket(request("par.t", options={"batch_bytes": 16384})))
    reader.read_chunk()
    reader.cancel()
    end = time.monotonic() + 1.5
    busy = "select count(*) from pg_stat_activity where application_name = 'pgflight' and state <> 'idle'"
    while database.execute(busy).fetchone() != (0,):
        assert time.monotonic() < end
    assert read(client, request("par.t")).num_rows == ROWS


def test_more_streams_than_connections(postgres: EmbeddedPostgres, tables: None) -> None:
    """Reads that want many connections take turns instead of blocking one another."""
    with ServerProcess(postgres.dsn(), "--max-connections", "3") as server:
        results: list[int] = []

        def work() -> None:
            with flight.connect(server.uri) as client:
                results.append(read(client, request("par.t", options={"streams": 8})).num_rows)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == [ROWS] * 8
