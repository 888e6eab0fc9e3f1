"""The connections of one PostgreSQL login: opened by libpq, configured once, reused when provably clean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
import psycopg_pool
import structlog

from kernels.errors import PgflightError
from transport.catalog import Connection, TypeCache
from transport.failures import translated
from transport.libpq import destroy

log = structlog.get_logger("pgflight.transport")

# The bytes are decoded as UTF-8 whatever the database's encoding.  The check interval makes a backend that
# computes without sending notice within a second that nobody listens any more.
SETUP_SQL = (
    "set client_encoding to 'UTF8'; set standard_conforming_strings to on; set application_name to 'pgflight'"
)
CHECK_INTERVAL_SQL = "set client_connection_check_interval to '1s'"
CANCEL_WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """Limits of a connection pool.

    Parameters
    ----------
    max_connections : int
        Connections held at most.
    max_waiting : int
        Requests that may wait for one; more are refused at once.
    wait_s : float
        How long a request waits.
    idle_s : float
        Unused connections are closed after this long.
    """

    max_connections: int = 16
    max_waiting: int = 256
    wait_s: float = 30.0
    idle_s: float = 300.0


class ConnectionPool:
    """Connections to one database under one login.

    Parameters
    ----------
    dsn : str
        Conninfo or URI; what it leaves open comes from libpq's environment, service and password files.
    options : PoolOptions
    """

    def __init__(self, dsn: str, options: PoolOptions | None = None) -> None:
        options = options or PoolOptions()
        self.types = TypeCache()
        self._pool: psycopg_pool.ConnectionPool[Connection] = psycopg_pool.ConnectionPool(
            dsn,
            min_size=0,
            max_size=options.max_connections,
            max_waiting=options.max_waiting,
            timeout=options.wait_s,
            max_idle=options.idle_s,
            kwargs={"autocommit": True, "prepare_threshold": None},
            configure=_configure,
            reset=_reset,
            check=psycopg_pool.ConnectionPool.check_connection,
            open=True,
            name="pgflight",
        )

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Lend a connection outside any transaction; it is closed unless it comes back clean and idle."""
        with translated():
            connection = self._pool.getconn()
        try:
            with translated():
                yield connection
        except PgflightError:
            self.give_back(connection)
            raise
        except BaseException:
            self.discard(connection)
            raise
        else:
            self.give_back(connection)

    def take(self) -> Connection:
        """Lend a connection; it must come back through `give_back` or `discard`."""
        with translated():
            return self._pool.getconn()

    def give_back(self, connection: Connection) -> None:
        """Return a connection whose protocol state is known; an open transaction is rolled back."""
        self._pool.putconn(connection)

    def discard(self, connection: Connection) -> None:
        """Close a connection whose reply was not read to its end, and stop what its backend does."""
        if not connection.closed:
            try:
                connection.cancel_safe(timeout=CANCEL_WAIT_S)
            except psycopg.Error as failure:
                # Closing the socket below stops a backend that sends; the check interval one that computes.
                log.info("cancel failed", error=str(failure))
            destroy(connection)
        self._pool.putconn(connection)

    def close(self) -> None:
        """Close all connections that are not lent; lent ones are closed when they come back."""
        self._pool.close()

    def statistics(self) -> dict[str, int]:
        """Return psycopg_pool's counters."""
        return dict(self._pool.get_stats())


def _configure(connection: Connection) -> None:
    connection.execute(SETUP_SQL.encode())
    if connection.info.server_version >= 140000:
        connection.execute(CHECK_INTERVAL_SQL.encode())


def _reset(connection: Connection) -> None:
    """Forget what the last user's query may have left in the session (runs in the pool's own thread)."""
    connection.execute(b"discard all")
    _configure(connection)
