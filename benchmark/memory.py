"""What the server's memory does under a result many times its size, and what reads that were cancelled leave."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil
import psycopg
from pyarrow import flight

from benchmark.measure import Meter
from benchmark.setting import pgflight_server
from demo.server import ServerProcess

RESULT_TIMES_POOL = 20
MAX_ROW_MIB = 8
ROW_BYTES = 972  # 960 of text, its offset, a bigint
SLOW_PAUSE_S = 0.005
"""What a slow client does between two batches of a MiB."""
ENDLESS = "SELECT generate_series(1, 1000000000) AS g, repeat('x', 100) AS t"
FIRST_CANCELS = 20
SETTLE_S = 10.0
POLL_S = 0.02
BACKENDS = """
SELECT count(*) FILTER (WHERE state <> 'idle'), count(*) FILTER (WHERE state = 'idle')
FROM pg_stat_activity WHERE application_name = 'pgflight'
"""


@dataclass(frozen=True)
class Growth:
    """The server's resident memory over one result; `base_bytes` is that of a server which has served one row."""

    client: str
    pool_bytes: int
    result_bytes: int
    seconds: float
    base_bytes: int
    peak_bytes: int

    @property
    def growth_bytes(self) -> int:
        """How much more memory than before was resident at most."""
        return self.peak_bytes - self.base_bytes


@dataclass(frozen=True)
class Held:
    """What the server holds.

    Attributes
    ----------
    busy, idle
        PostgreSQL backends that work for it, and those that its pool keeps for the next read.
    descriptors
        Open files and sockets, without those of the backends.
    threads
    """

    busy: int
    idle: int
    descriptors: int
    threads: int


@dataclass(frozen=True)
class Leaks:
    """What the server held before and after reads that were cancelled; and how long it took to be so again."""

    cancelled: int
    before: Held
    after: Held
    settled_s: float


ANYTHING_IDLE = Held(busy=0, idle=0, descriptors=1 << 30, threads=1 << 30)


def growth(dsn: str, pool_mib: int) -> list[Growth]:
    """Read a result of 20 times the server's memory, as fast as it comes and slowly; a new server for each."""
    figures = []
    for client, pause_s in (("fast", 0.0), ("slow", SLOW_PAUSE_S)):
        options = ("--memory-mib", str(pool_mib), "--max-row-mib", str(MAX_ROW_MIB))
        with pgflight_server(dsn, *options) as server:
            figures.append(_growth(server, client, pool_mib << 20, pause_s))
    return figures


def leaks(dsn: str, uri: str, pid: int, cancels: int) -> Leaks:
    """Cancel reads of a server after their first batch; wait until it holds what it did before, or 10 s."""
    process = psutil.Process(pid)
    with psycopg.connect(dsn, autocommit=True) as watcher, flight.connect(uri) as client:

        def held() -> Held:
            busy, idle = watcher.execute(BACKENDS).fetchone() or (0, 0)
            return Held(busy, idle, process.num_fds() - busy - idle, process.num_threads())

        _cancel(client, FIRST_CANCELS)  # pools and gRPC's threads grow to their sizes
        before = _settled(held, ANYTHING_IDLE)
        _cancel(client, cancels)
        started = time.perf_counter()
        after = _settled(held, before)
        return Leaks(cancels, before, after, time.perf_counter() - started)


def _growth(server: ServerProcess, client: str, pool_bytes: int, pause_s: float) -> Growth:
    rows = RESULT_TIMES_POOL * pool_bytes // ROW_BYTES + 1
    query = f"SELECT g::bigint AS g, repeat(md5(g::text), 30) AS t FROM generate_series(1, {rows}) AS g"
    with flight.connect(server.uri) as connection:
        connection.do_get(flight.Ticket(b"SELECT 1")).read_all()
        meter = Meter(server.pid)
        received = 0
        started = time.perf_counter()
        for chunk in connection.do_get(flight.Ticket(query.encode())):
            received += chunk.data.nbytes
            if pause_s:
                time.sleep(pause_s)
        seconds = time.perf_counter() - started
        return Growth(client, pool_bytes, received, seconds, meter.base_bytes, meter.peak_bytes())


def _cancel(client: flight.FlightClient, count: int) -> None:
    for _ in range(count):
        reader = client.do_get(flight.Ticket(ENDLESS.encode()))
        reader.read_chunk()
        reader.cancel()


def _settled(held: Callable[[], Held], bound: Held) -> Held:
    deadline = time.monotonic() + SETTLE_S
    while True:
        now = held()
        within = now.busy <= bound.busy and now.descriptors <= bound.descriptors and now.threads <= bound.threads
        if within or time.monotonic() > deadline:
            return now
        time.sleep(POLL_S)
