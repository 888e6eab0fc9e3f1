"""Transactions of clients: what they see, how they end, and what is left of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg
import pyarrow as pa
import pytest
from adbc_driver_flightsql import dbapi

from demo.postgres import EmbeddedPostgres
from flight_sql import pack
from flight_sql.envelope import unpack
from flight_sql.proto import flight_sql_pb2 as pb
from tests.flight_server.sql.rpc import RawClient
from tests.helpers.server import ServerProcess
from tests.helpers.waiting import eventually

COMMIT = pb.ActionEndTransactionRequest.END_TRANSACTION_COMMIT
ROLLBACK = pb.ActionEndTransactionRequest.END_TRANSACTION_ROLLBACK
OPEN = "select count(*) from pg_stat_activity where application_name = 'pgflight' and state like 'idle in trans%'"


@pytest.fixture
def bank(database: psycopg.Connection) -> psycopg.Connection:
    database.execute("create table scratch.bank (id int primary key, amount int)")
    database.execute("insert into scratch.bank values (1, 100), (2, 100)")
    return database


@pytest.fixture
def session(writable: ServerProcess) -> Iterator[dbapi.Connection]:
    """As the DB-API wants it: a transaction is always open."""
    with dbapi.connect(writable.uri) as connection:
        yield connection


def amounts(database: psycopg.Connection) -> list[int]:
    return [row[0] for row in database.execute("select amount from scratch.bank order by id").fetchall()]


def begin(raw: RawClient) -> bytes:
    [body] = raw.act("BeginTransaction", pack(pb.ActionBeginTransactionRequest()))
    return pb.ActionBeginTransactionResult.FromString(unpack(body).value).transaction_id


def end(raw: RawClient, transaction: bytes, action: int) -> None:
    raw.act("EndTransaction", pack(pb.ActionEndTransactionRequest(transaction_id=transaction, action=action)))


def update(raw: RawClient, sql: str, transaction: bytes) -> None:
    raw.put(pb.CommandStatementUpdate(query=sql, transaction_id=transaction), pa.table({}))


def query(raw: RawClient, sql: str, transaction: bytes) -> pa.Table:
    return raw.read(pb.CommandStatementQuery(query=sql, transaction_id=transaction))


def test_commit_and_rollback(session: dbapi.Connection, bank: psycopg.Connection) -> None:
    with session.cursor() as cursor:
        cursor.execute("update scratch.bank set amount = amount - 10 where id = 1")
        cursor.execute("select amount from scratch.bank where id = 1")
        assert cursor.fetchall() == [(90,)]
        assert amounts(bank) == [100, 100]
        session.rollback()
        cursor.execute("select amount from scratch.bank where id = 1")
        assert cursor.fetchall() == [(100,)]
        cursor.executemany("update scratch.bank set amount = $2 where id = $1", [(1, 90), (2, 110)])
        session.commit()
        assert amounts(bank) == [90, 110]
        cursor.execute("create table scratch.made (a int)")
        cursor.execute("insert into scratch.made values (1) returning a")
        assert cursor.fetchall() == [(1,)]
        cursor.execute("select * from scratch.made")
        assert cursor.fetchall() == [(1,)]
    session.rollback()
    assert bank.execute("select to_regclass('scratch.made')").fetchone() == (None,)
    eventually(lambda: bank.execute(OPEN).fetchone() == (0,))


def test_a_failed_statement_fails_the_transaction(session: dbapi.Connection, bank: psycopg.Connection) -> None:
    with session.cursor() as cursor:
        cursor.execute("update scratch.bank set amount = 0")
        with pytest.raises(dbapi.Error, match="22012"):
            cursor.execute("update scratch.bank set amount = 1 / 0")
        with pytest.raises(dbapi.Error, match="25P02"):
            cursor.execute("update scratch.bank set amount = 5")
        with pytest.raises(dbapi.Error, match="rolled back"):
            session.commit()
    assert amounts(bank) == [100, 100]


def test_a_result_that_is_left_unread(session: dbapi.Connection, bank: psycopg.Connection) -> None:
    """The transaction goes on: what was sent of the result is dropped."""
    with session.cursor() as cursor:
        cursor.execute("update scratch.bank set amount = 1 where id = 1")
    for sql in ("select g, repeat('x', 1000) from generate_series(1, 200000) g", "select * from scratch.bank"):
        with session.cursor() as cursor:
            cursor.execute(sql)
            assert cursor.fetchone() is not None
    with session.cursor() as cursor:
        cursor.execute("update scratch.bank set amount = 2 where id = 2")
    session.commit()
    assert amounts(bank) == [1, 2]


def test_a_read_that_fails_leaves_the_transaction(session: dbapi.Connection, bank: psycopg.Connection) -> None:
    with session.cursor() as cursor:
        cursor.execute("update scratch.bank set amount = 1 where id = 1")
        cursor.execute("select 1 / (g - 5000) from generate_series(1, 100000) g")
        with pytest.raises((dbapi.Error, OSError, pa.ArrowException), match="22012"):
            cursor.fetchall()
        cursor.execute("select amount from scratch.bank where id = 1")
        assert cursor.fetchall() == [(1,)]
    session.commit()
    assert amounts(bank) == [1, 100]


def test_savepoints(raw_writer: RawClient, bank: psycopg.Connection) -> None:
    transaction = begin(raw_writer)

    def set_savepoint() -> bytes:
        request = pb.ActionBeginSavepointRequest(transaction_id=transaction, name="s")
        [body] = raw_writer.act("BeginSavepoint", pack(request))
        return pb.ActionBeginSavepointResult.FromString(unpack(body).value).savepoint_id

    def end_savepoint(savepoint: bytes, action: int) -> None:
        raw_writer.act("EndSavepoint", pack(pb.ActionEndSavepointRequest(savepoint_id=savepoint, action=action)))

    update(raw_writer, "update scratch.bank set amount = 1 where id = 1", transaction)
    first = set_savepoint()
    with pytest.raises(pa.ArrowInvalid, match="22012"):
        update(raw_writer, "update scratch.bank set amount = 1 / 0", transaction)
    end_savepoint(first, pb.ActionEndSavepointRequest.END_SAVEPOINT_ROLLBACK)
    second = set_savepoint()
    update(raw_writer, "update scratch.bank set amount = 2 where id = 2", transaction)
    end_savepoint(second, pb.ActionEndSavepointRequest.END_SAVEPOINT_RELEASE)
    with pytest.raises(pa.ArrowInvalid, match="3B001"):
        end_savepoint(second, pb.ActionEndSavepointRequest.END_SAVEPOINT_RELEASE)
    end(raw_writer, transaction, ROLLBACK)
    assert amounts(bank) == [100, 100]


def test_the_end_is_remembered(raw_writer: RawClient, bank: psycopg.Connection) -> None:
    """A repeated commit changes nothing and is no error; anything else is."""
    transaction = begin(raw_writer)
    update(raw_writer, "update scratch.bank set amount = 7 where id = 1", transaction)
    end(raw_writer, transaction, COMMIT)
    end(raw_writer, transaction, COMMIT)
    assert amounts(bank) == [7, 100]
    with pytest.raises(pa.ArrowInvalid, match="was committed"):
        end(raw_writer, transaction, ROLLBACK)
    with pytest.raises(pa.ArrowInvalid, match="was committed"):
        update(raw_writer, "update scratch.bank set amount = 8", transaction)
    for unknown in (b"0" * 32, b"\xff", b"x" * 10_000):
        with pytest.raises(pa.ArrowInvalid, match="no such transaction"):
            end(raw_writer, unknown, COMMIT)
    with pytest.raises(pa.ArrowInvalid, match="commit or a rollback"):
        end(raw_writer, begin(raw_writer), 0)


def test_one_statement_at_a_time(raw_writer: RawClient, bank: psycopg.Connection) -> None:
    transaction = begin(raw_writer)
    update(raw_writer, "update scratch.bank set amount = 0", transaction)
    slow = "update scratch.bank set amount = amount + 1 where pg_sleep(0.2) is not null"
    threads = [threading.Thread(target=update, args=(raw_writer, slow, transaction)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert query(raw_writer, "select sum(amount)::int as s from scratch.bank", transaction)["s"].to_pylist() == [6]
    end(raw_writer, transaction, ROLLBACK)


def test_a_commit_that_is_not_answered(raw_writer: RawClient, bank: psycopg.Connection) -> None:
    """The backend dies while it commits: nobody can know, and the error says so."""
    bank.execute(
        """
        create function scratch.slow() returns trigger language plpgsql as
            'begin perform pg_sleep(30); return null; end';
        create constraint trigger slow after update on scratch.bank deferrable initially deferred
            for each row execute function scratch.slow();
        """
    )
    transaction = begin(raw_writer)
    update(raw_writer, "update scratch.bank set amount = 7 where id = 1", transaction)
    failed: list[BaseException] = []

    def commit() -> None:
        try:
            end(raw_writer, transaction, COMMIT)
        except pa.ArrowException as failure:
            failed.append(failure)

    thread = threading.Thread(target=commit)
    thread.start()
    committing = "select pid from pg_stat_activity where query = 'commit' and state = 'active'"
    eventually(lambda: bank.execute(committing).fetchone() is not None)
    [pid] = bank.execute(committing).fetchone() or [0]
    bank.execute("select pg_terminate_backend(%s)", [pid])
    thread.join(10)
    assert "unknown" in str(failed[0])
    with pytest.raises(pa.ArrowInvalid, match="unknown state"):
        end(raw_writer, transaction, COMMIT)


def test_idle_transactions_are_rolled_back(postgres: EmbeddedPostgres, bank: psycopg.Connection) -> None:
    with (
        ServerProcess(postgres.dsn(), "--allow-writes", "--transaction-idle-s", "1") as process,
        RawClient(process.uri) as raw,
    ):
        transaction = begin(raw)
        update(raw, "update scratch.bank set amount = 7", transaction)
        eventually(lambda: bank.execute(OPEN).fetchone() == (0,))
        with pytest.raises(pa.ArrowInvalid, match="unused for 1 s"):
            update(raw, "update scratch.bank set amount = 8", transaction)
    assert amounts(bank) == [100, 100]


def test_too_many(postgres: EmbeddedPostgres, bank: psycopg.Connection) -> None:
    """They never hold more than half of the connections, and reads go on."""
    flags = ("--allow-writes", "--max-transactions", "3", "--max-connections", "4")
    with ServerProcess(postgres.dsn(), *flags) as process, RawClient(process.uri) as raw:
        begun = [begin(raw) for _ in range(3)]
        with pytest.raises(pa.ArrowException, match="3 transactions are open"):
            begin(raw)
        for number, transaction in enumerate(begun[:2], start=1):
            update(raw, f"update scratch.bank set amount = 0 where id = {number}", transaction)
        with pytest.raises(pa.ArrowException, match="half of the server's connections"):
            update(raw, "delete from scratch.bank where false", begun[2])
        assert raw.query("select sum(amount)::int as s from scratch.bank")["s"].to_pylist() == [200]
        end(raw, begun[0], COMMIT)
        update(raw, "delete from scratch.bank where false", begun[2])
    assert amounts(bank) == [0, 100]  # the server's end rolled the other back
