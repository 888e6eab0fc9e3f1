"""The four ways to read a connection, in both framings, and what must be true after every use."""

from __future__ import annotations

import fcntl
import gc
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import psutil
import psycopg
import pyarrow as pa
import pytest
from psycopg import pq

from demo.postgres import EmbeddedPostgres
from tests.helpers import wire
from tests.helpers.reading import read
from tests.helpers.waiting import eventually
from transport.memory import RegionPool
from transport.pool import ConnectionPool, PoolOptions

READERS = ("tcp", "unix", "tls", "libpq")
SMALL_BLOCK = 64 << 10


@dataclass
class Route:
    """One way to PostgreSQL: a pool of a single connection, so that the next user gets the last one's.

    Parameters
    ----------
    name, framing : str
    server : EmbeddedPostgres
    pool : ConnectionPool
    memory : RegionPool
    """

    name: str
    framing: str
    server: EmbeddedPostgres
    pool: ConnectionPool
    memory: RegionPool
    options: dict[str, Any] = field(default_factory=dict)
    others: frozenset[int] = frozenset()
    """Backends of other pools of this process."""

    def read(self, sql: str, **options: Any) -> pa.Table:
        """Read a whole result."""
        return read(self.pool, self.memory, sql, **{**self.options, **options})

    def stream(self, sql: str, **options: Any) -> Iterator[pa.RecordBatch]:
        """Read a result lazily."""
        return wire.stream(self.pool, self.memory.allocate, sql, **{**self.options, **options})

    def backends(self) -> list[int]:
        """Return the process IDs of this route's backends."""
        return sorted(pgflight_backends(self.server) - self.others)

    def pid(self) -> int:
        """Return the backend that the next user gets."""
        return self.read("select pg_backend_pid() as pid").column(0)[0].as_py()


def pgflight_backends(server: EmbeddedPostgres) -> set[int]:
    """Return the process IDs of all connections of all pools."""
    with server.connect() as connection:
        rows = connection.execute("select pid from pg_stat_activity where application_name = 'pgflight'")
        return {pid for (pid,) in rows.fetchall()}


def lend(pool: ConnectionPool, look: Callable[[psycopg.Connection], Any]) -> Any:
    """Look at the pool's connection."""
    (connection,) = pool.take()
    try:
        return look(connection)
    finally:
        pool.give_back(connection)


def socket_state(connection: psycopg.Connection) -> tuple[int, int, int, bytes]:
    """Return (low-water mark, file status flags, TCP or Unix receive time-out …) as libpq will find them."""
    with socket.socket(fileno=os.dup(connection.pgconn.socket)) as twin:
        return (
            twin.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT),
            fcntl.fcntl(twin, fcntl.F_GETFL),
            connection.pgconn.nonblocking,
            twin.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16),
        )


def require_clean(pool: ConnectionPool, untouched: object) -> None:
    """Whatever happened: the pool serves, and its connection is as libpq made it."""

    def look(connection: psycopg.Connection) -> tuple[object, ...]:
        status = connection.info.transaction_status
        return socket_state(connection), status, connection.execute("select 7").fetchone()

    assert lend(pool, look) == (untouched, pq.TransactionStatus.IDLE, (7,))


@pytest.fixture(params=wire.FRAMINGS)
def framing(request: pytest.FixtureRequest) -> str:
    """COPY, and the rows of the extended protocol."""
    return request.param


@pytest.fixture(params=READERS)
def reader(request: pytest.FixtureRequest) -> str:
    """The four readers."""
    return request.param


@pytest.fixture
def server(reader: str, request: pytest.FixtureRequest) -> EmbeddedPostgres:
    """The server that this reader can reach."""
    return request.getfixturevalue("postgres_tls" if reader == "tls" else "postgres")


@pytest.fixture
def memory() -> Iterator[RegionPool]:
    """A pool of memory from which nothing may be missing at the end of the test."""
    pool = RegionPool(512 << 20)
    yield pool
    # What pytest.raises holds is a cycle: exception, traceback, the test's own frame.  A full collection is slow.
    for generation in (0, 1, 2):
        if pool.lent_bytes:
            gc.collect(generation)
    assert pool.lent_bytes == 0


@pytest.fixture
def route(reader: str, framing: str, server: EmbeddedPostgres, memory: RegionPool) -> Iterator[Route]:
    """A reader in a framing; afterwards nothing is left behind."""
    others = frozenset(pgflight_backends(server))
    descriptors = psutil.Process().num_fds()
    pool = ConnectionPool(server.dsn(unix=reader == "unix"), PoolOptions(max_connections=1, wait_s=20))
    untouched = lend(pool, socket_state)
    assert untouched[0] == 1
    options = {"framing": framing, "reader": "libpq" if reader == "libpq" else "auto", "batch_bytes": SMALL_BLOCK}
    yield Route(reader, framing, server, pool, memory, options, others)
    require_clean(pool, untouched)
    # psycopg_pool forgets a connection that it is still resetting when it is closed.
    eventually(lambda: pool.statistics().get("pool_available") == 1)
    pool.close()
    eventually(lambda: psutil.Process().num_fds(), lambda now: now <= descriptors)


@pytest.fixture
def scratch(server: EmbeddedPostgres) -> Iterator[psycopg.Connection]:
    """A connection of another user of the same server, and a schema that is dropped afterwards."""
    with server.connect() as connection:
        connection.execute("create schema scratch")
        yield connection
        connection.execute("drop schema scratch cascade")
