"""One read-only transaction: describe a statement, then read its reply."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import psycopg
import structlog
from psycopg import pq

from kernels.column import Column
from kernels.errors import RequestError
from kernels.typing import Allocate
from transport import catalog
from transport.catalog import Connection, Table
from transport.failures import require_ok, translated
from transport.messages import Request
from transport.pool import ConnectionPool
from transport.reader import open_reader
from transport.reply import Reply

log = structlog.get_logger("pgflight.transport")

# The second statement takes the snapshot: from then on READ ONLY cannot be undone from within a query.
BEGIN_SQL = """
begin isolation level repeatable read read only;
select set_config('statement_timeout', '{statement_ms}', true), set_config('lock_timeout', '{lock_ms}', true)
"""
STATUS_LETTERS = {pq.TransactionStatus.INTRANS: "T", pq.TransactionStatus.INERROR: "E"}


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How a session reads.

    Parameters
    ----------
    block_bytes : int
        Size of the block that is filled and decoded at once.
    max_row_bytes : int
        Largest row that is served.
    statement_timeout_s : float or None
        Passed to PostgreSQL; None for no limit.
    lock_timeout_s : float
        How long to wait for a lock that somebody's DDL holds.
    reader : str
        ``auto``, or one reader's name.
    """

    block_bytes: int = 1 << 20
    max_row_bytes: int = 256 << 20
    statement_timeout_s: float | None = None
    lock_timeout_s: float = 30.0
    reader: str = "auto"


class Session:
    """A connection of the pool inside ``BEGIN … READ ONLY``, used by one thread.

    Leaving the context always ends the transaction by ROLLBACK.  The connection returns to the pool only if its
    last reply was read up to ReadyForQuery and libpq agrees about the transaction; else it is closed.
    """

    def __init__(
        self, pool: ConnectionPool, options: SessionOptions, connection: Connection | None = None
    ) -> None:
        self._pool = pool
        self._options = options
        self._reply: Reply | None = None
        self._connection: Connection = connection or pool.take()[0]
        self.reader_name = ""

    def __enter__(self) -> Self:
        timeout_s = self._options.statement_timeout_s
        try:
            with translated():
                self._connection.execute(
                    BEGIN_SQL.format(
                        statement_ms=0 if timeout_s is None else max(1, int(timeout_s * 1000)),
                        lock_ms=int(self._options.lock_timeout_s * 1000),
                    ).encode()
                )
        except BaseException:
            self._pool.discard(self._connection)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reply is not None and not self._settle(self._reply):
            self._pool.discard(self._connection)
            return
        try:
            self._connection.execute(b"rollback")
        except psycopg.Error as failure:
            log.info("rollback failed", error=str(failure))
            self._pool.discard(self._connection)
            return
        self._pool.give_back(self._connection)

    @property
    def backend_pid(self) -> int:
        """Process ID of the backend."""
        return self._connection.info.backend_pid

    def describe(self, sql: str, *, parameters: int = 0, trust_not_null: bool = False) -> tuple[Column, ...]:
        """Parse one statement and return its result columns, without running it.

        Parameters
        ----------
        sql : str
        parameters : int
            How many values will be given for ``$1`` ….
        trust_not_null : bool
            The statement reads one relation as it is: NOT NULL then holds for the result as well.

        Raises
        ------
        PostgresError
            PostgreSQL refuses the text: syntax, names, privileges, or more than one statement.
        RequestError
            The statement returns no columns, or takes another number of parameters.
        """
        if "\0" in sql:
            raise RequestError("the statement contains a zero byte")
        with translated():
            pgconn = self._connection.pgconn
            require_ok(pgconn.prepare(b"", sql.encode()))
            described = require_ok(pgconn.describe_prepared(b""))
            if described.nparams != parameters:
                raise RequestError(f"the statement takes {described.nparams} parameters, {parameters} were given")
            if described.nfields == 0:
                raise RequestError("the statement returns no columns: only reading is served")
            return catalog.describe_result(
                self._connection, self._pool.types, described, trust_not_null=trust_not_null
            )

    def tables(self, pattern: str = "%") -> list[Table]:
        """Return the relations this login may read."""
        with translated():
            return catalog.list_tables(self._connection, self._pool.types, pattern)

    def estimate(self, relation: str) -> tuple[int, int]:
        """Return the estimated (rows, bytes) of a relation, -1 where unknown."""
        with translated():
            return catalog.estimate(self._connection, relation)

    def run(self, request: Request, allocate: Allocate, check: Callable[[], None]) -> Reply:
        """Send a statement and return its reply; one per session."""
        reader = open_reader(self._connection, self._options.reader)
        self.reader_name = reader.name
        self._reply = Reply(
            reader,
            allocate,
            block_bytes=self._options.block_bytes,
            max_row_bytes=self._options.max_row_bytes,
            check=check,
        )
        self._reply.send(request)
        return self._reply

    def _settle(self, reply: Reply) -> bool:
        """Take the connection back from the reader; return whether it may be used again."""
        if reply.outstanding or reply.status is None:
            reply.close()
            return False
        reply.release()
        ours, libpqs = reply.status, self._connection.pgconn.transaction_status
        # libpq did not see an error that we read: it still says INTRANS, and ROLLBACK puts that right.
        return ours in ("T", "E") and libpqs in STATUS_LETTERS
