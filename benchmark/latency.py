"""Small things: one-row queries in turn, and a server from its start to the first batch."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import psycopg
from pyarrow import flight

from benchmark.contestants import by_name
from benchmark.setting import pgflight_server

SQL = "SELECT 1 AS one, now() AS moment, 'text' AS word"
WARM_QUERIES = 20
Ask = Callable[[], object]


@dataclass(frozen=True)
class Latency:
    """Milliseconds of a query that returns one row, over a connection that is open."""

    title: str
    queries: int
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Startup:
    """Seconds from starting the server's process until it listens, and until a client has its first batch."""

    kernels: str
    listening_s: float
    first_batch_s: float


def queries(dsn: str, uri: str, count: int) -> list[Latency]:
    """Ask one query again and again, everybody in turn; pgflight is the server at `uri`."""
    with ExitStack() as stack:
        asks = dict(_asks(stack, dsn, uri))
        times: dict[str, list[float]] = {title: [] for title in asks}
        for number in range(WARM_QUERIES + count):
            for title, ask in asks.items():
                started = time.perf_counter()
                ask()
                if number >= WARM_QUERIES:
                    times[title].append(time.perf_counter() - started)
    return [
        Latency(title, count, *(float(value) * 1e3 for value in np.percentile(seconds, (50, 99))))
        for title, seconds in times.items()
    ]


def startup(dsn: str, *, cold: bool) -> list[Startup]:
    """Start servers: with compiled kernels on disk, and if `cold`, with none, as after an installation."""
    figures = [_startup(dsn, "on disk", {})]
    if cold:
        with tempfile.TemporaryDirectory(prefix="pgflight-benchmark-") as empty:
            figures.append(_startup(dsn, "compiled first", {"NUMBA_CACHE_DIR": empty}))
    return figures


def _startup(dsn: str, kernels: str, environment: dict[str, str]) -> Startup:
    started = time.perf_counter()
    with pgflight_server(dsn, environment=environment) as server:
        listening_s = time.perf_counter() - started
        with flight.connect(server.uri) as client:
            client.do_get(flight.Ticket(SQL.encode())).read_chunk()
            return Startup(kernels, listening_s, time.perf_counter() - started)


def _asks(stack: ExitStack, dsn: str, uri: str) -> Iterator[tuple[str, Ask]]:
    import pgflight  # noqa: PLC0415 - the other benchmarks work where only the server's packages are

    raw = stack.enter_context(flight.connect(uri))
    ticket = flight.Ticket(SQL.encode())
    yield "pgflight, DoGet", lambda: raw.do_get(ticket).read_all()
    client = stack.enter_context(pgflight.connect(uri))
    yield "pgflight client, table", lambda: client.query(SQL).to_arrow()
    connection = stack.enter_context(psycopg.connect(dsn, autocommit=True))
    yield "psycopg, rows", lambda: connection.execute(SQL.encode()).fetchall()
    if by_name("adbc").missing is None:
        yield "ADBC, table", _adbc(stack, dsn)


def _adbc(stack: ExitStack, dsn: str) -> Ask:
    from adbc_driver_postgresql import dbapi  # noqa: PLC0415 - an extra

    cursor = stack.enter_context(stack.enter_context(dbapi.connect(dsn, autocommit=True)).cursor())

    def ask() -> object:
        cursor.execute(SQL)
        return cursor.fetch_arrow_table()

    return ask
