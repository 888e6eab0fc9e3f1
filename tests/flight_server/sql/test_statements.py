"""Queries through ADBC's driver: the values, the forms of statements, many clients at once."""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from adbc_driver_flightsql import ConnectionOptions, DatabaseOptions, StatementOptions, dbapi

from flight_server.telemetry import query_digest
from flight_sql import pack
from flight_sql.envelope import unpack
from flight_sql.proto import flight_sql_pb2 as pb
from tests.flight_server.sql.rpc import RawClient
from tests.helpers.server import ServerProcess
from tests.helpers.waiting import eventually

EVERY_TYPE = """
select true as bool, 1::int2 as int2, -2::int4 as int4, 3::int8 as int8, 0.1::float4 as float4,
       'NaN'::float8 as float8, 12.50::numeric(10, 2) as dec, 'text ü 🙂'::text as text, 'ab'::char(4) as bpchar,
       'v'::varchar(3) as varchar, '\\x00ff'::bytea as bytea, date '2020-02-29' as date,
       time '23:59:59.999999' as time, timestamp '1999-12-31 23:59:59.5' as ts,
       timestamptz '2020-01-01 00:00:00+02' as tstz, interval '1 mon 2 days 3.000004 s' as interval,
       'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid as uuid, null::int4 as nothing, null::text as no_text
"""

FLOAT4, FLOAT8, INTERVAL = 4, 5, 15


def fetch(connection: dbapi.Connection, sql: str, parameters: Any = None) -> pa.Table:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetch_arrow_table()


def test_values_equal_psycopgs(adbc: dbapi.Connection, database: psycopg.Connection) -> None:
    """Each type of a row, null or not, is the value that psycopg reads."""
    for sql in (EVERY_TYPE, f"select * from ({EVERY_TYPE}) x where false", f"{EVERY_TYPE} union all {EVERY_TYPE}"):
        expected = database.execute(sql.replace("%", "%%")).fetchall()
        found = [tuple(row.values()) for row in fetch(adbc, sql).to_pylist()]
        assert len(found) == len(expected)
        for mine, theirs in zip(found, expected, strict=True):
            # psycopg reads float4 as its shortest text, and intervals without their months.
            same = [index for index in range(len(mine)) if index not in (FLOAT4, FLOAT8, INTERVAL)]
            assert [mine[index] for index in same] == [theirs[index] for index in same]
            assert mine[FLOAT4] == pytest.approx(theirs[FLOAT4])
            assert math.isnan(mine[FLOAT8])
    assert fetch(adbc, EVERY_TYPE)["interval"].to_pylist() == [pa.MonthDayNano([1, 2, 3_000_004_000])]


@pytest.mark.parametrize(
    "sql",
    [
        "show server_version", "explain select 1", "values (1, 'a'), (2, null)", "table scratch.goods",
        "with a as (select 1 as x) select * from a;", 'select 1 as a, 2 as a, 3 as " ", 4 as "ünï"',
        "select 1 -- comment", 'select * from scratch."Odd ""Näme"""', "select point '(1,2)' as cast_ -- comment",
        "/* first */ select '$1' as not_a_parameter",
    ],
)  # fmt: skip
def test_forms_of_statements(adbc: dbapi.Connection, shop: psycopg.Connection, sql: str) -> None:
    """Whatever returns rows."""
    expected = shop.execute(sql).fetchall()
    found = fetch(adbc, sql)
    assert found.schema.names == [column.name for column in shop.execute(sql).description]
    columns = [list(column) for column in zip(*expected, strict=True)] or [[]] * found.num_columns
    assert [column.to_pylist() for column in found.columns] == columns


@pytest.mark.parametrize(
    "sql", ["select", "select from scratch.goods", "set x.y to 1", "begin", "lock scratch.a_b"]
)
def test_statements_that_return_no_columns(adbc: dbapi.Connection, shop: psycopg.Connection, sql: str) -> None:
    with pytest.raises(dbapi.ProgrammingError, match="returns no columns"):
        fetch(adbc, sql)


def test_schemas_without_running(adbc: dbapi.Connection, shop: psycopg.Connection) -> None:
    """By the driver's execute_schema and prepare; nothing runs, so division by zero is no error."""
    with adbc.cursor() as cursor:
        schema = cursor.adbc_execute_schema("select id, price, label, 1 / (id - id) as boom from scratch.goods")
        assert schema.types == [pa.int64(), pa.decimal128(8, 2), pa.string(), pa.int64()]
        metadata = schema.field("price").metadata
        assert metadata[b"ARROW:FLIGHT:SQL:TYPE_NAME"] == b"numeric"
        assert metadata[b"ARROW:FLIGHT:SQL:PRECISION"] == b"8"
        assert metadata[b"ARROW:FLIGHT:SQL:SCALE"] == b"2"
        assert metadata[b"ARROW:FLIGHT:SQL:REMARKS"] == b"in euros"
        parameters = cursor.adbc_prepare(
            "select * from scratch.goods where id = $1 and price > $2 and code = $3 and mood = $4 and tags = $5 "
            "and at < $6"
        )
        assert parameters.names == ["$1", "$2", "$3", "$4", "$5", "$6"]
        assert parameters.types == [
            pa.int64(), pa.string(), pa.uuid(), pa.string(), pa.string(), pa.timestamp("us", "UTC"),
        ]  # fmt: skip
        assert not cursor.adbc_prepare("select 1").names


def test_errors_are_typed(adbc: dbapi.Connection, shop: psycopg.Connection) -> None:
    """The class that ADBC has for each, PostgreSQL's text and SQLSTATE, never a traceback."""
    for sql, status, text in (
        ("selec 1", "INVALID_ARGUMENT", "42601"),
        ("select * from no_such_table", "NOT_FOUND", "42P01"),
        ("select no_such_column from scratch.goods", "INVALID_ARGUMENT", "42703"),
        ("select 1; select 2", "INVALID_ARGUMENT", "42601"),
        ("create table scratch.t (a int)", "INVALID_ARGUMENT", "only reads"),
        ("insert into scratch.a_b values (1)", "INVALID_ARGUMENT", "only reads"),
        ("insert into scratch.a_b values (1) returning x", "INVALID_ARGUMENT", "25006"),
        ("select setval('scratch.goods_counted_seq', 7)", "INVALID_ARGUMENT", "25006"),
        ("select 1 / 0", "INVALID_ARGUMENT", "22012"),
        ("select * from pg_catalog.pg_authid", "UNAUTHORIZED", "42501"),
    ):
        with pytest.raises((dbapi.Error, OSError, pa.ArrowException), match=text) as caught:
            fetch(adbc, sql)
        assert "Traceback" not in str(caught.value)
        if isinstance(caught.value, dbapi.Error):
            assert caught.value.status_code.name == status, sql
    assert shop.execute("select count(*) from scratch.a_b").fetchone() == (0,)


def test_what_writes_is_refused_by_name(adbc: dbapi.Connection, shop: psycopg.Connection) -> None:
    """Not by an accident further on: updates, ingestion and transactions have their own calls."""
    with adbc.cursor() as cursor:
        with pytest.raises(dbapi.NotSupportedError, match="only reads"):
            cursor.executemany("select x from scratch.a_b where x = $1", [(1,), (2,)])
        with pytest.raises(dbapi.NotSupportedError, match="only reads"):
            cursor.adbc_ingest("a_b", pa.table({"x": [1]}), mode="append", db_schema_name="scratch")
    with adbc.cursor() as cursor, pytest.raises(dbapi.NotSupportedError, match="only SQL"):
        cursor.execute(b"a Substrait plan")
    with pytest.raises(dbapi.NotSupportedError):
        adbc.adbc_connection.set_autocommit(False)
    assert shop.execute("select count(*) from scratch.a_b").fetchone() == (0,)


def test_large_results_in_small_messages(adbc: dbapi.Connection) -> None:
    """Batches of a MiB at most: every client's limit is above that."""
    found = fetch(adbc, "select g, repeat('x', 100) as t, g::float8 as f from generate_series(1, 300000) g")
    assert found.num_rows == 300_000
    assert sum(found["g"].to_pylist()) == 300_000 * 300_001 // 2
    assert max(batch.nbytes for batch in found.to_batches()) <= 1 << 20


def test_small_clients_limits(server: ServerProcess) -> None:
    """A client that accepts messages of two MiB reads everything, nulls of wide types too."""
    with dbapi.connect(
        server.uri, db_kwargs={DatabaseOptions.WITH_MAX_MSG_SIZE.value: str(2 << 20)}, autocommit=True
    ) as connection:
        sql = "select null::numeric(70, 5) as a, null::uuid as b, 'x' as c from generate_series(1, 200000)"
        assert fetch(connection, sql).num_rows == 200_000


def test_partitions(
    adbc: dbapi.Connection, raw: RawClient, server: ServerProcess, shop: psycopg.Connection
) -> None:
    """One endpoint by default; as many as asked for by header; any connection reads them, or cancels them."""
    shop.execute("create table scratch.wide as select g, repeat('x', 200) as t from generate_series(1, 20000) g")
    with adbc.cursor() as cursor:
        partitions, schema = cursor.adbc_execute_partitions("select * from scratch.wide")
        assert len(partitions) == 1
        assert schema.names == ["g", "t"]
        # A snapshot is held for the two, until it is given back.
        option = f"{ConnectionOptions.RPC_CALL_HEADER_PREFIX.value}x-pgflight-endpoints"
        cursor.adbc_statement.set_options(**{option: "2"})
        partitions, _ = cursor.adbc_execute_partitions("select * from scratch.wide ")
        assert len(partitions) == 2
    found = []
    with dbapi.connect(server.uri, autocommit=True) as other, other.cursor() as cursor:
        for partition in partitions:
            cursor.adbc_read_partition(partition)
            found += cursor.fetch_arrow_table()["g"].to_pylist()
    assert sorted(found) == list(range(1, 20_001))
    cancel = pack(pb.ActionCancelQueryRequest(info=partitions[0]))
    for result in (
        pb.ActionCancelQueryResult.CANCEL_RESULT_CANCELLED,
        pb.ActionCancelQueryResult.CANCEL_RESULT_NOT_CANCELLABLE,
    ):
        [body] = raw.act("CancelQuery", cancel)
        assert pb.ActionCancelQueryResult.FromString(unpack(body).value).result == result
    with pytest.raises(pa.ArrowInvalid, match="no FlightInfo"):
        raw.act("CancelQuery", pack(pb.ActionCancelQueryRequest(info=b"nothing")))


def test_cancel_frees_the_backend(adbc: dbapi.Connection, database: psycopg.Connection) -> None:
    """From another thread, while the statement only computes."""
    sql = "select count(*) from generate_series(1, 100000000000) as cancelled_here"

    def busy() -> int:
        row = database.execute(
            "select count(*) from pg_stat_activity where state = 'active' and query like '%%cancelled_here' "
            "and pid <> pg_backend_pid()"
        ).fetchone()
        return int(row[0])

    with adbc.cursor() as cursor:
        cursor.execute(sql)  # the driver reads ahead: the statement runs
        eventually(busy, lambda count: count == 1)
        threading.Timer(0.1, cursor.adbc_cancel).start()
        with pytest.raises((dbapi.Error, OSError, pa.ArrowException)):
            cursor.fetchall()
    eventually(busy, lambda count: count == 0)


def test_timeouts_of_the_client(adbc: dbapi.Connection) -> None:
    with adbc.cursor() as cursor:
        cursor.adbc_statement.set_options(**{StatementOptions.TIMEOUT_FETCH.value: 0.3})
        cursor.execute("select count(*) from generate_series(1, 100000000000)")
        with pytest.raises((dbapi.Error, OSError, pa.ArrowException), match=r"(?i)deadline|timeout|timed out"):
            cursor.fetchall()


def test_fifty_clients(server: ServerProcess, shop: psycopg.Connection) -> None:
    """More than there are PostgreSQL connections: they wait their turn, and each gets its own rows."""

    def work(number: int) -> list[int]:
        with dbapi.connect(server.uri, autocommit=True) as connection, connection.cursor() as cursor:
            results = []
            for turn in range(4):
                cursor.execute("select $1::int4 * 100 + $2::int4 as v", (number, turn))
                results += [row[0] for row in cursor.fetchall()]
            return results

    with ThreadPoolExecutor(50) as threads:
        found = list(threads.map(work, range(50)))
    assert found == [[number * 100 + turn for turn in range(4)] for number in range(50)]


def test_each_read_runs_once(raw: RawClient, server: ServerProcess) -> None:
    """Preparing and planning run nothing; every DoGet is one line in the log."""
    sql = "select clock_timestamp() as at, 'once' as mark"

    def runs() -> int:
        return sum(
            line["event"] == "read" and line["query"] == query_digest(sql) and line["outcome"] == "complete"
            for line in server.log
        )

    handle = raw.prepare(sql).prepared_statement_handle
    info = raw.info(pb.CommandPreparedStatementQuery(prepared_statement_handle=handle))
    raw.info(pb.CommandStatementQuery(query=sql))
    times = [raw.get(info.endpoints[0].ticket.ticket)["at"][0], raw.get(info.endpoints[0].ticket.ticket)["at"][0]]
    assert times[0] != times[1]
    eventually(runs, lambda count: count >= 2)
    assert runs() == 2
