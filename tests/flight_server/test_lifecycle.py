"""Clients that go, servers that stop: nothing is left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest
from pyarrow import flight

from demo.postgres import EmbeddedPostgres
from tests.helpers.server import ServerProcess
from tests.helpers.waiting import eventually

ENDLESS = b"select generate_series(1, 1000000000) as g, repeat('x', 100) as t"
COMPUTING = b"select count(*) from generate_series(1, 100000000000) g"
READ_ONE_THEN_WAIT = """
import sys
from pyarrow import flight
reader = flight.connect(sys.argv[1]).do_get(flight.Ticket(sys.argv[2].encode()))
if sys.argv[3] == "first":
    reader.read_chunk()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def own_server(postgres: EmbeddedPostgres) -> Iterator[ServerProcess]:
    with ServerProcess(postgres.dsn(application_name="lifecycle"), "--drain-grace-s", "1") as server:
        yield server


def busy_backends(database: psycopg.Connection) -> int:
    row = database.execute(
        "select count(*) from pg_stat_activity where application_name = 'pgflight' and state <> 'idle'"
    ).fetchone()
    return int(row[0])


def cancelled_reads(client: flight.FlightClient, count: int) -> None:
    for _ in range(count):
        reader = client.do_get(flight.Ticket(ENDLESS))
        reader.read_chunk()
        reader.cancel()


def other_process(uri: str, query: bytes, until: str = "first") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", READ_ONE_THEN_WAIT, uri, query.decode(), until],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def reap(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_cancel_frees_the_backend(server: ServerProcess, database: psycopg.Connection) -> None:
    with flight.connect(server.uri) as client:
        reader = client.do_get(flight.Ticket(ENDLESS))
        reader.read_chunk()
        assert busy_backends(database) == 1
        reader.cancel()
        eventually(lambda: busy_backends(database), lambda count: count == 0, deadline_s=1.0)


def test_cancel_of_a_statement_that_only_computes(server: ServerProcess, database: psycopg.Connection) -> None:
    """Nothing is ever written, so only polling for the cancellation can notice."""
    with flight.connect(server.uri) as client:
        reader = client.do_get(flight.Ticket(COMPUTING))
        eventually(lambda: busy_backends(database), lambda count: count == 1)
        reader.cancel()
        eventually(lambda: busy_backends(database), lambda count: count == 0, deadline_s=1.5)


@pytest.mark.parametrize("query", [ENDLESS, COMPUTING], ids=["sending", "computing"])
def test_death_of_the_client_frees_the_backend(
    server: ServerProcess, database: psycopg.Connection, query: bytes
) -> None:
    process = other_process(server.uri, query, "first" if query is ENDLESS else "started")
    eventually(lambda: busy_backends(database), lambda count: count == 1)
    reap(process)
    eventually(lambda: busy_backends(database), lambda count: count == 0, deadline_s=1.5)


def locks(database: psycopg.Connection, table: str) -> int:
    """Count clients' locks: autovacuum comes and goes as it likes."""
    row = database.execute(
        "select count(*) from pg_locks join pg_stat_activity using (pid) "
        "where relation = %s::regclass and backend_type = 'client backend'",
        (table,),
    ).fetchone()
    return int(row[0])


@pytest.mark.parametrize("end", ["kill", "cancel"])
def test_the_end_of_a_parallel_read_frees_all_its_backends(
    server: ServerProcess, database: psycopg.Connection, end: str
) -> None:
    database.execute("create table scratch.wide (id int8, pad text)")
    database.execute("insert into scratch.wide select g, repeat('x', 1000) from generate_series(1, 60000) g")
    query = b'{"table": "scratch.wide", "options": {"streams": 4}}'
    if end == "kill":
        process = other_process(server.uri, query)
        assert busy_backends(database) == 4
        reap(process)
    else:
        with flight.connect(server.uri) as client:
            reader = client.do_get(flight.Ticket(query))
            reader.read_chunk()
            assert busy_backends(database) == 4
            reader.cancel()
    eventually(lambda: busy_backends(database), lambda count: count == 0, deadline_s=1.0)
    assert locks(database, "scratch.wide") == 0
    ages = "select count(*) from pg_stat_activity where application_name = 'pgflight' and backend_xmin is not null"
    assert database.execute(ages).fetchone() == (0,)


def test_two_hundred_cancelled_reads_leave_nothing(
    own_server: ServerProcess, database: psycopg.Connection
) -> None:
    def resources() -> tuple[int, int]:
        return own_server.process.num_fds(), own_server.process.num_threads()

    with flight.connect(own_server.uri) as client:
        for _ in range(5):
            client.do_get(flight.Ticket(b"select 1")).read_all()
        base_fds, base_threads = resources()
        for _ in range(200):
            reader = client.do_get(flight.Ticket(ENDLESS))
            reader.read_chunk()
            reader.cancel()
        eventually(lambda: busy_backends(database), lambda count: count == 0)
        eventually(resources, lambda now: now[0] <= base_fds + 10 and now[1] <= base_threads + 20)
        assert client.do_get(flight.Ticket(b"select 1")).read_all().num_rows == 1


def test_sigterm_lets_a_running_stream_finish(postgres: EmbeddedPostgres) -> None:
    with ServerProcess(postgres.dsn()) as server, flight.connect(server.uri) as client:
        reader = client.do_get(flight.Ticket(b"select g from generate_series(1, 3000000) g"))
        rows = reader.read_chunk().data.num_rows
        server.signal(signal.SIGTERM)
        server.wait_for("draining")
        with pytest.raises(flight.FlightUnavailableError):
            flight.connect(server.uri).do_get(flight.Ticket(b"select 1"))
        assert rows + reader.read_all().num_rows == 3_000_000
        assert server.wait() == 0
        assert server.wait_for("stopped")["clean"] is True


def test_idle_server_stops_at_once(own_server: ServerProcess) -> None:
    own_server.signal(signal.SIGINT)
    assert own_server.wait() == 0


def test_a_stalled_client_does_not_keep_the_server(
    own_server: ServerProcess, database: psycopg.Connection
) -> None:
    """A client that reads nothing blocks gRPC; the server still ends, within its grace and a little."""
    process = other_process(own_server.uri, ENDLESS)
    try:
        process.send_signal(signal.SIGSTOP)
        started = time.monotonic()
        own_server.signal(signal.SIGTERM)
        own_server.wait(deadline_s=10)
        assert time.monotonic() - started < 1 + 2 + 2  # grace, the bound, and slack for a busy machine
        eventually(lambda: busy_backends(database), lambda count: count == 0)
    finally:
        reap(process)


@pytest.mark.parametrize(("streams", "unix"), [(1, False), (4, False), (1, True)])
def test_a_stalled_client_keeps_no_snapshot(
    postgres: EmbeddedPostgres, database: psycopg.Connection, streams: int, unix: bool
) -> None:
    """It still has what was sent before it stopped, and then learns why there is no more."""
    database.execute("create table scratch.wide (id int8, pad text)")
    database.execute("insert into scratch.wide select g, repeat('x', 1000) from generate_series(1, 100000) g")
    dsn = postgres.dsn(unix=unix)
    with ServerProcess(dsn, "--stall-timeout-s", "1") as server, flight.connect(server.uri) as client:
        command = f'{{"table": "scratch.wide", "options": {{"streams": {streams}}}}}'
        reader = client.do_get(flight.Ticket(command.encode()))
        reader.read_chunk()
        assert busy_backends(database) == streams
        server.wait_for("client stalled")
        eventually(lambda: busy_backends(database), lambda count: count == 0, deadline_s=1.0)
        assert locks(database, "scratch.wide") == 0
        with pytest.raises(flight.FlightTimedOutError, match="did not read for 1 s"):
            reader.read_all()
        assert client.do_get(flight.Ticket(b"select 1")).read_all().num_rows == 1


def test_a_second_signal_forces(postgres: EmbeddedPostgres) -> None:
    with ServerProcess(postgres.dsn(), "--drain-grace-s", "60") as server:
        process = other_process(server.uri, ENDLESS)
        try:
            server.signal(signal.SIGTERM)
            server.wait_for("draining")
            server.signal(signal.SIGTERM)
            assert server.wait(deadline_s=10) == 0
        finally:
            reap(process)


def test_a_result_passes_through_little_memory(postgres: EmbeddedPostgres) -> None:
    """Twenty times the pool, to a client that reads slowly at first: the server's memory stays put."""
    with ServerProcess(postgres.dsn(), "--memory-mib", "32", "--max-row-mib", "8") as server:
        with flight.connect(server.uri) as client:
            client.do_get(flight.Ticket(b"select 1")).read_all()
            base = peak = server.process.memory_info().rss
            done = threading.Event()

            def watch() -> None:
                nonlocal peak
                while not done.wait(0.05):
                    peak = max(peak, server.process.memory_info().rss)

            watcher = threading.Thread(target=watch)
            watcher.start()
            size = 0
            query = b"select g, repeat(md5(g::text), 30) as t from generate_series(1, 700000) g"
            for number, chunk in enumerate(client.do_get(flight.Ticket(query))):
                size += chunk.data.nbytes
                if number < 10:
                    time.sleep(0.1)
            done.set()
            watcher.join()
    assert size > 20 * (32 << 20)
    assert peak - base < 512 << 20


def test_many_clients_at_once(server: ServerProcess) -> None:
    """More readers than connections: they wait for their turn, and all are served whole."""
    query = flight.Ticket(b"select g, g::text as t from generate_series(1, 50000) g")
    results: list[int] = []

    def read() -> None:
        with flight.connect(server.uri) as client:
            results.append(client.do_get(query).read_all().num_rows)

    threads = [threading.Thread(target=read) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [50_000] * 40
