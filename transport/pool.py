"""The connections of one PostgreSQL login: opened by libpq, configured once, reused when provably clean."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import psycopg
import psycopg_pool
import structlog

from kernels.errors import OverloadedError
from transport.catalog import Connection, TypeCache
from transport.failures import translated
from transport.libpq import destroy
from transport.readiness import wait_for

log = structlog.get_logger("pgflight.transport")

# The bytes are decoded as UTF-8 whatever the database's encoding.  The check interval makes a backend that
# computes without sending notice within a second that nobody listens any more.
SETUP_SQL = (
    "set client_encoding to 'UTF8'; set standard_conforming_strings to on; set application_name to 'pgflight'"
)
CHECK_INTERVAL_SQL = "set client_connection_check_interval to '1s'"
CANCEL_WAIT_S = 1.0
CONNECT_WAIT_S = 5.0
"""How long a new connection may take before we ask ourselves why: PostgreSQL restarting is waited for."""
CONNECT_TIMEOUT_S = 10
FRESH_S = 1.0
"""A connection that was used so recently is not asked whether it is alive."""


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """Limits of a connection pool.

    Parameters
    ----------
    max_connections : int
        Connections held at most.
    reserved : int
        So many of them are not for streams: what is answered at once never waits for a stream to end.
    max_waiting : int
        Requests that may wait for one; more are refused at once.
    wait_s : float
        How long a request waits.
    idle_s : float
        Unused connections are closed after this long.
    """

    max_connections: int = 16
    reserved: int = 0
    max_waiting: int = 256
    wait_s: float = 30.0
    idle_s: float = 300.0


class Slots:
    """Counts connections in use; a request takes all it needs at once, or waits its turn.

    First come, first served: a request for many is not overtaken for ever by requests for one, and no request
    holds some while it waits for more, so requests cannot block one another for good.

    Parameters
    ----------
    count : int
    max_waiting : int
        Requests that may wait; more are refused at once.
    """

    def __init__(self, count: int, max_waiting: int) -> None:
        self.count = count
        self._free = count
        self._max_waiting = max_waiting
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    def take(self, wanted: int, wait_s: float) -> None:
        """Take `wanted` slots.

        Raises
        ------
        OverloadedError
            Too many wait already, or the turn did not come within `wait_s`.
        """
        turn = object()
        deadline = time.monotonic() + wait_s
        with self._changed:
            if (self._queue or self._free < wanted) and len(self._queue) >= self._max_waiting:
                raise OverloadedError("too many requests wait for a PostgreSQL connection")
            self._queue.append(turn)
            try:
                if not self._changed.wait_for(
                    lambda: self._queue[0] is turn and self._free >= wanted, deadline - time.monotonic()
                ):
                    raise OverloadedError(f"no PostgreSQL connection became free in {wait_s:g} s")
                self._free -= wanted
            finally:
                self._queue.remove(turn)
                self._changed.notify_all()

    def take_free(self, wanted: int) -> int:
        """Take up to `wanted` slots that nobody waits for, without waiting; return how many."""
        with self._changed:
            taken = 0 if self._queue else min(wanted, self._free)
            self._free -= taken
            return taken

    @property
    def waiting(self) -> int:
        """Requests whose turn has not come."""
        return len(self._queue)

    def give_back(self, number: int = 1) -> None:
        """Return slots."""
        with self._changed:
            self._free += number
            self._changed.notify_all()


class ConnectionPool:
    """Connections to one database under one login.

    Parameters
    ----------
    dsn : str
        Conninfo or URI; what it leaves open comes from libpq's environment, service and password files.
    options : PoolOptions
    """

    def __init__(self, dsn: str, options: PoolOptions | None = None) -> None:
        self._options = options or PoolOptions()
        self._dsn = dsn
        self.types = TypeCache()
        self._used: WeakKeyDictionary[Connection, float] = WeakKeyDictionary()
        self._slots = Slots(self._options.max_connections - self._options.reserved, self._options.max_waiting)
        self._reserve = Slots(self._options.reserved, self._options.max_waiting)
        self._from_reserve: set[Connection] = set()
        self._pool: psycopg_pool.ConnectionPool[Connection] = psycopg_pool.ConnectionPool(
            dsn,
            min_size=0,
            max_size=self._options.max_connections,
            timeout=self._options.wait_s,
            max_idle=self._options.idle_s,
            kwargs={"autocommit": True, "prepare_threshold": None},
            configure=_configure,
            check=self._check,
            open=True,
            name="pgflight",
        )

    @property
    def max_connections(self) -> int:
        """Connections that streams can take at once."""
        return self._slots.count

    def take(self, count: int = 1) -> list[Connection]:
        """Lend connections, all at once; each must come back through `give_back` or `discard`.

        Raises
        ------
        OverloadedError
            They did not become free in time.
        ConnectionLostError
            PostgreSQL cannot be reached.
        """
        self._slots.take(count, self._options.wait_s)
        return self._open(count, self._slots)

    def take_free(self, count: int) -> list[Connection]:
        """Lend up to `count` connections that nobody waits for: a read that holds some never waits for more."""
        return self._open(self._slots.take_free(count), self._slots)

    def take_for_question(self) -> Connection:
        """Lend a connection for what is answered at once: one that no stream waits for, or a reserved one.

        Raises
        ------
        OverloadedError, ConnectionLostError
            As by `take`.
        """
        if not self._options.reserved:
            return self.take()[0]
        free = self.take_free(1)
        if free:
            return free[0]
        self._reserve.take(1, self._options.wait_s)
        (connection,) = self._open(1, self._reserve)
        self._from_reserve.add(connection)
        return connection

    def _open(self, count: int, slots: Slots) -> list[Connection]:
        """Open as many connections as slots were taken."""
        taken: list[Connection] = []
        try:
            with translated():
                while len(taken) < count:
                    taken.append(self._connection())
        except BaseException:
            slots.give_back(count - len(taken))
            for connection in taken:
                self.give_back(connection)
            raise
        return taken

    def _connection(self) -> Connection:
        """Return an idle connection or a new one; when that takes long, find out why and say so."""
        try:
            return self._pool.getconn(timeout=min(CONNECT_WAIT_S, self._options.wait_s))
        except psycopg_pool.PoolTimeout:
            psycopg.connect(self._dsn, connect_timeout=CONNECT_TIMEOUT_S).close()  # raises the reason
            return self._pool.getconn()

    def _check(self, connection: Connection) -> None:
        """Make sure that a connection is alive; one that was used just now is, unless its socket has news."""
        stale = time.monotonic() - self._used.get(connection, 0.0) > FRESH_S
        if stale or wait_for(connection.fileno(), 0):
            psycopg_pool.ConnectionPool.check_connection(connection)

    def scrub(self, connection: Connection) -> None:
        """Forget all that statements may have left in PostgreSQL's session."""
        connection.execute(b"discard all")
        _configure(connection)

    def give_back(self, connection: Connection) -> None:
        """Return a connection whose protocol state is known, in no transaction, with nothing of its last user."""
        self._used[connection] = time.monotonic()
        reserved = connection in self._from_reserve
        self._from_reserve.discard(connection)
        self._pool.putconn(connection)
        (self._reserve if reserved else self._slots).give_back()

    def discard(self, connection: Connection) -> None:
        """Close a connection whose reply was not read to its end, and stop what its backend does."""
        if not connection.closed:
            try:
                connection.cancel_safe(timeout=CANCEL_WAIT_S)
            except psycopg.Error as failure:
                # Closing the socket below stops a backend that sends; the check interval one that computes.
                log.info("cancel failed", error=str(failure))
            destroy(connection)
        self.give_back(connection)

    def close(self) -> None:
        """Close all connections that are not lent; lent ones are closed when they come back."""
        self._pool.close()

    @property
    def waiting(self) -> int:
        """Requests that wait for a connection now."""
        return self._slots.waiting + self._reserve.waiting

    def statistics(self) -> dict[str, int]:
        """Return psycopg_pool's counters."""
        return dict(self._pool.get_stats())


def _configure(connection: Connection) -> None:
    connection.execute(SETUP_SQL.encode())
    if connection.info.server_version >= 140000:
        connection.execute(CHECK_INTERVAL_SQL.encode())
