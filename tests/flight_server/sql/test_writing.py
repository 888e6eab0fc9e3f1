"""Writing: by a driver, message by message, once and no more, and refused where it is not allowed."""

from __future__ import annotations

import psycopg
import pyarrow as pa
import pytest
from adbc_driver_flightsql import dbapi

from flight_sql.proto import flight_sql_pb2 as pb
from tests.flight_server.sql.rpc import RawClient

NO_ROWS = pa.table({})


def count(database: psycopg.Connection) -> int:
    row = database.execute("select count(*) from scratch.notes").fetchone()
    assert row is not None
    return row[0]


def updated(answer: bytes | None) -> int:
    return pb.DoPutUpdateResult.FromString(answer or b"").record_count


def test_a_driver_writes(writer: dbapi.Connection, notes: psycopg.Connection) -> None:
    with writer.cursor() as cursor:
        cursor.execute("create table scratch.more (a int, b numeric(9, 2), c timestamptz)")
        cursor.execute("insert into scratch.notes (note) values ('one'), ('two')")
        assert cursor.rowcount == 2
        cursor.execute("insert into scratch.notes (note) values ('three') returning id, note")
        assert cursor.fetchall() == [(3, "three")]
        cursor.executemany("insert into scratch.notes (note) values ($1)", [(f"n{i}",) for i in range(1000)])
        assert cursor.rowcount == 1000
        cursor.execute("update scratch.notes set note = $2 where id <= $1", (2, "new"))
        assert cursor.rowcount == 2
        cursor.execute(
            "with gone as (delete from scratch.notes where id > 3 returning 1) select count(*) from gone"
        )
        assert cursor.fetchall() == [(1000,)]
        cursor.execute("vacuum scratch.notes")
        cursor.execute("select note from scratch.notes order by id")
        assert cursor.fetchall() == [("new",), ("new",), ("three",)]
        cursor.execute("drop table scratch.more")
    assert count(notes) == 3


def test_all_rows_of_parameters_or_none(writer: dbapi.Connection, notes: psycopg.Connection) -> None:
    with writer.cursor() as cursor, pytest.raises(dbapi.Error, match="23505"):
        cursor.executemany("insert into scratch.notes values ($1, 'x')", [(i,) for i in (*range(600), 7)])
    assert count(notes) == 0


def test_what_fails_is_typed(writer: dbapi.Connection, notes: psycopg.Connection) -> None:
    for sql, text in (
        ("insert into scratch.notes values (1), (1)", "23505"),
        ("insert into scratch.nothing values (1)", "42P01"),
        ("insert into pg_catalog.pg_class default values", "42501"),
        ("begin", "their own calls"),
        ("copy scratch.notes from stdin", "COPY is not run as a statement"),
        ("insert into scratch.notes values (1); select 1", "42601"),
    ):
        with writer.cursor() as cursor, pytest.raises(dbapi.Error, match=text) as caught:
            cursor.execute(sql)
        assert "Traceback" not in str(caught.value)
    assert count(notes) == 0


def test_updates_run_once_each(raw_writer: RawClient, notes: psycopg.Connection) -> None:
    sql = "insert into scratch.notes (note) values ('x')"
    assert updated(raw_writer.put(pb.CommandStatementUpdate(query=sql), NO_ROWS)) == 1
    made = raw_writer.prepare(sql)
    assert made.is_update
    assert not raw_writer.prepare("select 1").is_update
    command = pb.CommandPreparedStatementUpdate(prepared_statement_handle=made.prepared_statement_handle)
    assert count(notes) == 1
    assert updated(raw_writer.put(command, NO_ROWS)) == 1
    assert count(notes) == 2
    made = raw_writer.prepare("insert into scratch.notes (note) values ($1)")
    command = pb.CommandPreparedStatementUpdate(prepared_statement_handle=made.prepared_statement_handle)
    assert updated(raw_writer.put(command, pa.table({"1": ["a", None, "c"]}))) == 3
    assert updated(raw_writer.put(command, pa.table({"1": pa.array([], pa.string())}))) == 0
    assert updated(raw_writer.put(pb.CommandStatementUpdate(query="create table scratch.t ()"), NO_ROWS)) == -1
    assert count(notes) == 5


def test_a_result_that_is_too_large_is_rolled_back(raw_writer: RawClient, notes: psycopg.Connection) -> None:
    sql = "insert into scratch.notes (note) select repeat('x', 100000) from generate_series(1, 800) returning note"
    with pytest.raises(pa.ArrowInvalid, match="rolled back"):
        raw_writer.query(sql)
    assert count(notes) == 0


def test_foreign_outcomes_are_not_read(raw_writer: RawClient, notes: psycopg.Connection) -> None:
    info = raw_writer.info(pb.CommandStatementQuery(query="select scratch.noted('x')"))
    [endpoint] = info.endpoints
    name = endpoint.ticket.ticket.split(b'"o":"')[1][:32]
    forged = endpoint.ticket.ticket.replace(name, b"0" * 32)
    with pytest.raises(pa.ArrowException, match="not executed again"):
        raw_writer.get(forged)
    assert count(notes) == 1


def test_what_the_server_says_of_itself(raw_writer: RawClient) -> None:
    found = raw_writer.read(
        pb.CommandGetSqlInfo(info=[pb.FLIGHT_SQL_SERVER_READ_ONLY, pb.FLIGHT_SQL_SERVER_TRANSACTION])
    )
    assert found["value"].to_pylist() == [False, pb.SQL_SUPPORTED_TRANSACTION_SAVEPOINT]
