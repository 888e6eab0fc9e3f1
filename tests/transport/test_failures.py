"""When a read does not end well: a typed error, nothing left behind, and the next user is served."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from kernels.errors import (
    CancelledError,
    ConnectionLostError,
    OverloadedError,
    PgflightError,
    PostgresError,
    RequestError,
    ValueRangeError,
)
from tests.helpers import wire
from tests.helpers.waiting import eventually
from transport.memory import RegionPool
from transport.opening import SessionOptions
from transport.pool import ConnectionPool, PoolOptions
from transport.session import Session

# In the select list: in FROM, PostgreSQL would first write all rows to a file.
ENDLESS = "select generate_series(1, 1000000000) as g, repeat('x', 100) as t"
LONG_ROW = "select repeat('x', 5000000) as t"
LIMIT = 4 << 20
DIVISION = "select 1 / (150000 - g) as v from generate_series(1, 300000) g"
PROMPT_S = 1.0
"""How soon PostgreSQL must be free of a query nobody waits for."""


def gives_up(after: int) -> Callable[[], None]:
    """Return a check that raises the given time it is called."""
    calls = iter(range(after))

    def check() -> None:
        if next(calls, None) is None:
            raise CancelledError("the client went away")

    return check


def require_gone(route, pid: int) -> None:
    """The backend must not even be idle in a transaction."""
    eventually(route.backends, lambda pids: pid not in pids, deadline_s=PROMPT_S)


def test_error_before_the_first_row(route) -> None:
    pid = route.pid()
    with pytest.raises(PostgresError) as caught:
        route.read("select 1 / (g - 1) as v from generate_series(1, 3) g")
    assert caught.value.sqlstate == "22012"
    assert route.pid() == pid


def test_error_in_mid_stream(route) -> None:
    """The rows before it are real; the connection is used again."""
    pid, rows = route.pid(), 0
    with pytest.raises(PostgresError, match="division by zero") as caught:
        for batch in route.stream(DIVISION):
            rows += batch.num_rows
            del batch
    assert caught.value.sqlstate == "22012"
    assert 100_000 < rows < 150_000
    assert route.pid() == pid


def test_error_text_has_detail_hint_and_position(route, scratch) -> None:
    scratch.execute(
        "create function scratch.fail() returns int language plpgsql as $$ begin"
        " raise exception 'né %', 1 using errcode = 'XY123', detail = 'the détail', hint = 'the hint'; end $$"
    )
    with pytest.raises(PostgresError) as caught:
        route.read("select scratch.fail() as v")
    assert caught.value.sqlstate == "XY123"
    assert str(caught.value) == "né 1; detail: the détail; hint: the hint [SQLSTATE XY123]"
    with pytest.raises(PostgresError, match=r"at character 8\).*42703"):
        route.read("select nothing")


def test_error_messages_are_not_kept_alive(route) -> None:
    """What a failed read held is given back at once, not when the collector comes by."""

    def outcome(action: Callable[[], Any]) -> str:
        try:
            action()
        except PgflightError as failure:
            return type(failure).__name__
        return "complete"

    actions = {
        "PostgresError": lambda: route.read(DIVISION),
        "ValueRangeError": lambda: route.read("select date 'infinity' as d"),
        "CancelledError": lambda: route.read(ENDLESS, check=gives_up(20)),
        "OverloadedError": lambda: list(route.stream(LONG_ROW, max_row_bytes=LIMIT)),
    }
    gc.collect()
    gc.disable()
    try:
        for wanted, action in actions.items():
            assert outcome(action) == wanted
            assert route.memory.lent_bytes == 0, wanted
    finally:
        gc.enable()


def test_terminated_in_mid_stream(route) -> None:
    seen: list[int] = []
    rows = route.stream(ENDLESS, started=lambda session: seen.append(session.backend_pid))
    assert next(rows).num_rows > 0
    with route.server.connect() as connection:
        assert connection.execute("select pg_terminate_backend(%s)", seen).fetchone() == (True,)
    with pytest.raises(ConnectionLostError):
        for batch in rows:
            del batch
    require_gone(route, seen[0])


def test_terminated_while_idle(route) -> None:
    """The pool notices before it lends the connection."""
    pid = route.pid()
    eventually(lambda: route.pool.statistics().get("pool_available") == 1)
    with route.server.connect() as connection:
        connection.execute("select pg_terminate_backend(%s)", (pid,))
    eventually(route.backends, lambda pids: pid not in pids)
    assert route.pid() != pid


def test_terminates_itself(route) -> None:
    with pytest.raises(ConnectionLostError, match=r"57P01|closed the connection"):
        route.read("select pg_terminate_backend(pg_backend_pid()) as v")


@pytest.mark.parametrize(
    "query",
    [ENDLESS, "select pg_sleep(60) as v", "select count(*) as v from generate_series(1, 10000000000)"],
    ids=["sending", "sleeping", "computing"],
)
def test_given_up(route, query: str) -> None:
    """The query ends in PostgreSQL although nobody reads its reply any more."""
    seen: list[int] = []
    with pytest.raises(CancelledError):
        list(route.stream(query, check=gives_up(3), started=lambda session: seen.append(session.backend_pid)))
    require_gone(route, seen[0])


def test_given_up_at_once(route) -> None:
    with pytest.raises(CancelledError):
        route.read(ENDLESS, check=gives_up(0))


def test_abandoned(route) -> None:
    seen: list[int] = []
    rows = route.stream(ENDLESS, started=lambda session: seen.append(session.backend_pid))
    next(rows)
    rows.close()
    require_gone(route, seen[0])


def test_forgotten(route) -> None:
    """No close, no end: the last reference goes."""
    seen: list[int] = []
    rows = route.stream(ENDLESS, started=lambda session: seen.append(session.backend_pid))
    next(rows)
    del rows
    require_gone(route, seen[0])


def test_value_error_in_mid_stream(route) -> None:
    seen: list[int] = []
    query = (
        "select case g when 5000 then 'infinity' else '2000-01-01' end::date as d"
        " from (select generate_series(1, 1000000000) as g offset 0) as endless"
    )
    with pytest.raises(ValueRangeError) as caught:
        list(route.stream(query, started=lambda session: seen.append(session.backend_pid)))
    assert caught.value.row == 4999
    require_gone(route, seen[0])


def test_row_beyond_the_limit(route) -> None:
    with pytest.raises(OverloadedError, match="row exceeds"):
        list(route.stream(LONG_ROW, max_row_bytes=LIMIT))
    table = route.read(LONG_ROW)
    assert len(table.column(0)[0].as_buffer()) == 5_000_000


def test_memory_budget_too_small(route) -> None:
    """Before anything is sent: the connection is kept."""
    pid = route.pid()
    small = RegionPool(100_000)
    with pytest.raises(OverloadedError, match="budget"):
        list(wire.stream(route.pool, small.allocate, "select 1", **{**route.options, "batch_bytes": 200_000}))
    assert small.lent_bytes == 0
    assert route.pid() == pid


def test_memory_budget_spent_in_mid_stream(route) -> None:
    """Somebody keeps all batches."""
    small = RegionPool(600_000, wait_s=0.05)
    kept = []
    with pytest.raises(OverloadedError, match="stayed in use"):
        kept.extend(wire.stream(route.pool, small.allocate, ENDLESS, **route.options))
    assert len(kept) > 1
    kept.clear()
    if small.lent_bytes:
        gc.collect()
    assert small.lent_bytes == 0


def test_slow_consumer_holds_postgresql_back(route) -> None:
    """Nothing grows on our side while nobody reads."""
    seen: list[int] = []
    rows = route.stream(ENDLESS, started=lambda session: seen.append(session.backend_pid))
    first = next(rows)
    before = route.memory.lent_bytes
    with route.server.connect() as connection:
        eventually(
            lambda: connection.execute("select wait_event from pg_stat_activity where pid = %s", seen).fetchone(),
            lambda found: found == ("ClientWrite",),
        )
    assert route.memory.lent_bytes == before
    assert first.num_rows > 0
    rows.close()


def test_statement_timeout(route) -> None:
    reader = route.options["reader"]
    with Session(route.pool, SessionOptions(statement_timeout_s=0.2, reader=reader)) as session:
        columns = session.describe("select pg_sleep(60) as v")
        copy = route.framing == "copy"
        text = "copy (select pg_sleep(60) as v) to stdout (format binary)" if copy else "select pg_sleep(60) as v"
        replies = session.run(wire.Request(text, copy=copy), route.memory.allocate, lambda: None)
        decoder = wire.make_decoder(wire.plan(columns), route.framing)
        with pytest.raises(PostgresError) as caught:
            list(wire.decode_replies(replies, decoder, copy=copy))
    assert caught.value.sqlstate == "57014"


@pytest.mark.parametrize("reader", ["tcp"])
def test_lock_timeout(server, memory, scratch) -> None:
    scratch.execute("create table scratch.t (a int)")
    pool = ConnectionPool(server.dsn(), PoolOptions(max_connections=1))
    with server.connect() as other, other.transaction():
        other.execute("lock table scratch.t in access exclusive mode")
        with pytest.raises(PostgresError) as caught, Session(pool, SessionOptions(lock_timeout_s=0.1)) as session:
            session.describe("select a from scratch.t")
        assert caught.value.sqlstate == "55P03"
    with Session(pool, SessionOptions(lock_timeout_s=0.1)) as session:
        assert [column.name for column in session.describe("select a from scratch.t")] == ["a"]
    eventually(lambda: pool.statistics().get("pool_available") == 1)
    pool.close()


def test_many_failures_in_a_row(route) -> None:
    """Nothing adds up."""
    for round_number in range(5):
        with pytest.raises(PostgresError):
            route.read("select 1/0 as v")
        with pytest.raises(CancelledError):
            route.read(ENDLESS, check=gives_up(round_number))
        with pytest.raises(RequestError):
            route.read("set work_mem to '8MB'")
    assert len(route.backends()) <= 1


@pytest.mark.slow
def test_cancelled_from_all_sides(route) -> None:
    """Many rounds, given up after any number of looks, with a terminating neighbour."""
    stop = threading.Event()

    def terminate() -> None:
        with route.server.connect() as connection:
            while not stop.wait(0.05):
                for pid in route.backends():
                    connection.execute("select pg_terminate_backend(%s)", (pid,))

    killer = threading.Thread(target=terminate)
    killer.start()
    deadline = time.monotonic() + 20
    rounds = 0
    while time.monotonic() < deadline:
        rounds += 1
        with pytest.raises((CancelledError, ConnectionLostError)):
            list(route.stream(ENDLESS, check=gives_up(rounds % 40)))
    stop.set()
    killer.join()
    assert rounds > 20
