"""Connections: counted, shared fairly, replaced when they may be dirty."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psutil
import pytest

from kernels.errors import ConnectionLostError, OverloadedError
from tests.helpers.reading import read
from tests.helpers.waiting import eventually
from tests.transport.conftest import lend
from transport.opening import SessionOptions
from transport.pool import ConnectionPool, PoolOptions, Slots
from transport.reader import open_reader, reader_name
from transport.session import Session

WAIT_S = 60.0


@pytest.fixture
def pair(postgres) -> Iterator[ConnectionPool]:
    """A pool of two connections whose requests wait half a second."""
    pool = ConnectionPool(postgres.dsn(), PoolOptions(max_connections=2, max_waiting=1, wait_s=0.5))
    yield pool
    pool.close()


def waiting(slots: Slots) -> int:
    """Return how many wait."""
    return len(slots._queue)


def take_in_thread(slots: Slots, wanted: int, order: list[str], name: str) -> threading.Thread:
    """Take slots in another thread, and note when."""

    def work() -> None:
        slots.take(wanted, WAIT_S)
        order.append(name)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_slots_are_counted() -> None:
    slots = Slots(3, max_waiting=1)
    slots.take(2, 0)
    with pytest.raises(OverloadedError, match="became free"):
        slots.take(2, 0.01)
    slots.take(1, 0)
    slots.give_back(3)
    slots.take(3, 0)


def test_slots_are_first_come_first_served() -> None:
    """A request for many is not overtaken by requests for one."""
    slots, order = Slots(2, max_waiting=9), []
    slots.take(2, 0)
    many = take_in_thread(slots, 2, order, "many")
    eventually(lambda: waiting(slots) == 1)
    one = take_in_thread(slots, 1, order, "one")
    eventually(lambda: waiting(slots) == 2)
    slots.give_back(1)
    assert slots.take_free(1) == 0
    assert order == []
    slots.give_back(1)
    many.join(10)
    assert order == ["many"]
    slots.give_back(2)
    one.join(10)
    assert order == ["many", "one"]


def test_who_gives_up_waiting_makes_way() -> None:
    slots, order = Slots(2, max_waiting=9), []
    slots.take(1, 0)
    refused = threading.Event()

    def impatient() -> None:
        try:
            slots.take(2, 0.2)
        except OverloadedError:
            refused.set()

    first = threading.Thread(target=impatient)
    first.start()
    eventually(lambda: waiting(slots) == 1)
    second = take_in_thread(slots, 1, order, "second")
    first.join(10)
    second.join(10)
    assert refused.is_set()
    assert order == ["second"]


def test_waiting_is_limited() -> None:
    slots, order = Slots(1, max_waiting=2), []
    slots.take(1, 0)
    threads = [take_in_thread(slots, 1, order, "waits") for _ in range(2)]
    eventually(lambda: waiting(slots) == 2)
    with pytest.raises(OverloadedError, match="too many"):
        slots.take(1, WAIT_S)
    slots.give_back(2)
    for thread in threads:
        thread.join(10)
    assert order == ["waits", "waits"]


def test_take_free_takes_what_is_there() -> None:
    slots = Slots(3, max_waiting=1)
    slots.take(1, 0)
    assert [slots.take_free(5), slots.take_free(5)] == [2, 0]
    slots.give_back(3)
    assert slots.take_free(2) == 2


def test_connections_are_limited(pair: ConnectionPool) -> None:
    taken = pair.take(2)
    assert len({connection.info.backend_pid for connection in taken}) == 2
    assert pair.take_free(1) == []
    with pytest.raises(OverloadedError):
        pair.take()
    pair.give_back(taken.pop())
    (another,) = pair.take()
    for connection in (another, *taken):
        pair.give_back(connection)


def test_what_is_reserved_is_for_questions(postgres) -> None:
    """Streams never hold all connections; questions take those that streams leave first."""
    pool = ConnectionPool(postgres.dsn(), PoolOptions(max_connections=3, reserved=1, max_waiting=1, wait_s=0.2))
    assert pool.max_connections == 2
    one = pool.take_for_question()
    streams = pool.take_free(3)
    assert len(streams) == 1, "the other one was free, and is asked a question"
    other = pool.take_for_question()
    for take in (pool.take_for_question, pool.take):
        with pytest.raises(OverloadedError):
            take()
    pool.discard(other)
    pool.give_back(pool.take_for_question())
    with pytest.raises(OverloadedError):
        pool.take()
    pool.give_back(one)
    streams += pool.take()
    for connection in (*streams, pool.take_for_question()):
        pool.give_back(connection)
    pool.close()


def test_a_discarded_connection_is_replaced(pair: ConnectionPool) -> None:
    for _ in range(5):
        (connection,) = pair.take()
        pid = connection.info.backend_pid
        pair.discard(connection)
        assert connection.closed
        assert lend(pair, lambda next_one: next_one.info.backend_pid) != pid


def test_an_open_transaction_does_not_reach_the_next_user(pair: ConnectionPool) -> None:
    (connection,) = pair.take()
    connection.execute("begin")
    pair.give_back(connection)
    for taken in (pair.take(2),):
        assert [str(one.info.transaction_status.name) for one in taken] == ["IDLE", "IDLE"]
        for one in taken:
            pair.give_back(one)


def test_a_session_that_cannot_begin_gives_its_connection_back(pair: ConnectionPool) -> None:
    """Over and over, with a pool of two."""
    for _ in range(5):
        (connection,) = pair.take()
        connection.close()
        with pytest.raises(ConnectionLostError), Session(pair, SessionOptions(), connection=connection) as session:
            session.describe("select 1")
    assert lend(pair, lambda one: one.execute("select 1").fetchone()) == (1,)


def test_a_reader_that_does_not_fit_gives_everything_back(postgres, memory) -> None:
    """TLS asked for on a plain connection."""
    pool = ConnectionPool(postgres.dsn(), PoolOptions(max_connections=1))
    pids = {read(pool, memory, "select pg_backend_pid() as pid").column(0)[0].as_py()}
    descriptors = psutil.Process().num_fds()
    for _ in range(5):
        with pytest.raises(ConnectionLostError, match="TLS"):
            read(pool, memory, "select 1 as a", reader="tls")
        pids.add(read(pool, memory, "select pg_backend_pid() as pid").column(0)[0].as_py())
    assert len(pids) == 1
    assert psutil.Process().num_fds() == descriptors
    eventually(lambda: pool.statistics().get("pool_available") == 1)
    pool.close()


def test_an_unknown_reader(pair: ConnectionPool, memory) -> None:
    with pytest.raises(KeyError):
        read(pair, memory, "select 1 as a", reader="carrier pigeon")
    assert read(pair, memory, "select 1 as a").num_rows == 1


@pytest.mark.parametrize(
    ("unix", "tls", "name"), [(False, False, "tcp"), (True, False, "unix"), (False, True, "tls")]
)
def test_the_reader_that_fits_is_chosen(unix: bool, tls: bool, name: str, request) -> None:
    server = request.getfixturevalue("postgres_tls" if tls else "postgres")
    pool = ConnectionPool(server.dsn(unix=unix), PoolOptions(max_connections=1))
    assert lend(pool, reader_name) == name

    def looked(connection) -> str:
        reader = open_reader(connection)
        reader.close()
        return reader.name

    assert lend(pool, looked) == name
    eventually(lambda: pool.statistics().get("pool_available") == 1)
    pool.close()


def test_a_closed_pool_refuses(postgres) -> None:
    pool = ConnectionPool(postgres.dsn())
    pool.close()
    with pytest.raises(ConnectionLostError, match="shutting down"):
        pool.take()


def test_a_lent_connection_is_closed_when_it_comes_back_to_a_closed_pool(postgres) -> None:
    pool = ConnectionPool(postgres.dsn())
    (connection,) = pool.take()
    pool.close()
    pool.give_back(connection)
    assert connection.closed


def test_a_wrong_password(postgres_tls) -> None:
    dsn = postgres_tls.dsn(password="wrong")
    pool = ConnectionPool(dsn, PoolOptions(wait_s=1))
    with pytest.raises(ConnectionLostError, match="password authentication failed"):
        pool.take()
    pool.close()
