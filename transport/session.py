"""One read-only transaction: describe a statement, then read its reply."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Protocol, Self, cast

import psycopg
import structlog
from psycopg import pq

from kernels.column import Column
from kernels.errors import DecodeError, OverloadedError, PostgresError, RequestError, SnapshotEndedError
from kernels.typing import Allocate
from transport import catalog, partition, snapshot, statements, volatility
from transport.catalog import Connection, Table
from transport.failures import translated
from transport.libpq import hang_up
from transport.locked import LOCKED_SQL, REWRITTEN_SQL, Locked
from transport.messages import Request
from transport.opening import SessionOptions, opening
from transport.partition import Leaf
from transport.pool import ConnectionPool
from transport.reader import Reader, open_reader
from transport.reply import Reply
from transport.snapshot import Snapshot
from transport.volatility import Mutable

log = structlog.get_logger("pgflight.transport")

END_SQL = "rollback; deallocate all; select pg_catalog.pg_advisory_unlock_all()"
"""Undoes all, and forgets what a READ ONLY transaction can leave behind in PostgreSQL's session."""
CANCEL_WAIT_S = 1.0


class MakeReply(Protocol):
    """Makes the reply of a session: how its bytes move."""

    def __call__(
        self,
        reader: Reader,
        allocate: Allocate,
        /,
        *,
        block_bytes: int,
        max_row_bytes: int,
        check: Callable[[], None],
        patience_s: float,
    ) -> Reply:
        """Return a reply; see `Reply` for the arguments."""


STATUS_LETTERS = {pq.TransactionStatus.INTRANS: "T", pq.TransactionStatus.INERROR: "E"}


class Session:
    """A connection of the pool inside ``BEGIN … READ ONLY``, used by one thread.

    Parameters
    ----------
    pool : ConnectionPool
    options : SessionOptions
    connection : Connection, optional
        One that was taken from the pool; by default the session takes one.
    snapshot : Snapshot, optional
        An exported snapshot to read, whose exporter must still be in its transaction.

    The transaction begins, and takes its snapshot, with what is asked first: that saves an exchange.

    Leaving the context always ends the transaction by ROLLBACK.  The connection returns to the pool only if its
    last reply was read up to ReadyForQuery and libpq agrees about the transaction; else it is closed.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        options: SessionOptions,
        *,
        connection: Connection | None = None,
        snapshot: Snapshot | None = None,
    ) -> None:
        self._pool = pool
        self._options = options
        self._reply: Reply | None = None
        self._snapshot = snapshot
        self._lent: Connection = connection or pool.take()[0]
        self._unsent: tuple[str, ...] = ()
        self._locked: Locked | None = None
        self._ended = False
        self.reader_name = ""

    @property
    def _connection(self) -> Connection:
        """The connection, in its transaction: whoever takes it may lock more than was looked at."""
        self._locked = None
        if self._unsent:
            unsent, self._unsent = self._unsent, ()
            self._lent.execute(";".join(unsent).encode())
        return self._lent

    def __enter__(self) -> Self:
        try:
            with translated():
                self._begin()
        except BaseException as failure:
            self._pool.discard(self._lent)
            if self._snapshot and isinstance(failure, PostgresError) and failure.sqlstate in snapshot.GONE:
                raise SnapshotEndedError from failure
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reply is not None and not self._settle(self._reply):
            self._pool.discard(self._lent)
            return
        try:
            if not self._ended:
                self._end()
        except psycopg.Error as failure:
            log.info("rollback failed", error=str(failure))
            self._pool.discard(self._lent)
            return
        self._pool.give_back(self._lent)

    def _end(self) -> None:
        self._lent.execute(END_SQL.encode())

    def _begin(self) -> None:
        """Begin with what is asked first, in one exchange; at once with another's snapshot, for it may be gone."""
        self._unsent = opening(self._options, self._snapshot)
        if self._snapshot:
            seen = snapshot.facts(self._connection)
            if seen != (self._snapshot.content, self._snapshot.server):
                raise SnapshotEndedError

    @property
    def backend_pid(self) -> int:
        """Process ID of the backend."""
        return self._lent.info.backend_pid

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
        with translated():
            described = self._parse(sql)
            if described.nparams != parameters:
                raise RequestError(f"the statement takes {described.nparams} parameters, {parameters} were given")
            if described.nfields == 0:
                raise RequestError("the statement returns no columns: only reading is served")
            return self._columns(described, trust_not_null=trust_not_null)

    def describe_any(self, sql: str) -> tuple[tuple[int, ...], tuple[catalog.TypeInfo, ...], tuple[Column, ...]]:
        """Parse one statement of any kind and return its parameters' OIDs and types, and its result's columns."""
        with translated():
            described = self._parse(sql)
            oids = tuple(described.param_type(index) for index in range(described.nparams))
            known = self._pool.types.look_up(self._lent, oids)
            columns = self._columns(described)
        return oids, tuple(known[oid] for oid in oids), columns

    def _parse(self, sql: str) -> pq.abc.PGresult:
        if "\0" in sql:
            raise RequestError("the statement contains a zero byte")
        unsent, self._unsent = self._unsent, ()
        described, locked = statements.describe(self._lent, sql, before=unsent, after=LOCKED_SQL)
        self._locked = Locked.of(locked)
        return described

    def _columns(self, described: pq.abc.PGresult, *, trust_not_null: bool = False) -> tuple[Column, ...]:
        origins = None if trust_not_null or self._locked is None else self._locked.origins
        return catalog.describe_result(self._lent, self._pool.types, described, origins)

    def names(self, sql: str, wanted: Sequence[str]) -> set[str]:
        """Return the first column of a query of the catalog that takes a list of names as ``$1``."""
        with translated():
            rows = psycopg.RawCursor(self._connection).execute(sql, [list(wanted)]).fetchall()
        return {row[0] for row in rows}

    def tables(self, pattern: str = "%") -> list[Table]:
        """Return the relations this login may read."""
        with translated():
            return catalog.list_tables(self._connection, self._pool.types, pattern)

    def estimate(self, relation: str) -> tuple[int, int]:
        """Return the estimated (rows, bytes) of a relation, -1 where unknown."""
        with translated():
            return catalog.estimate(self._connection, relation)

    def leaves(self, relation: str) -> tuple[list[Leaf], str | None]:
        """Return a relation's leaves and their sizes, or why it cannot be read in parts."""
        with translated():
            return partition.leaves(self._connection, relation)

    def explain(self, sql: str, *, sequential: bool = True) -> dict[str, Any]:
        """Return the root node of a statement's plan, without parallel workers, as PostgreSQL's JSON says it.

        Locks every relation the statement reads, partitions included.

        Parameters
        ----------
        sql : str
        sequential : bool
            False has PostgreSQL read pages by their numbers, also where it would rather read a small table whole;
            this lasts until the transaction ends.
        """
        with translated():
            self._connection.execute(b"set local max_parallel_workers_per_gather to 0")
            if not sequential:
                self._connection.execute(b"set local enable_seqscan to off")
            row = self._connection.execute(b"explain (verbose, costs off, format json) " + sql.encode()).fetchone()
        return cast("dict[str, Any]", row[0][0]["Plan"]) if row else {}

    def first_mutable(
        self, calls: Sequence[tuple[str, int]], operators: Sequence[str], types: Sequence[str]
    ) -> Mutable | None:
        """Return the first of the functions and operators named that is not known to be immutable."""
        with translated():
            return volatility.first_mutable(self._connection, calls, operators, types)

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo, in PostgreSQL, what fails inside; the transaction and its snapshot go on."""
        with translated():
            self._connection.execute(b"savepoint attempt")
        try:
            yield
        except BaseException:
            if not self._connection.closed:
                with translated():
                    self._connection.execute(b"rollback to savepoint attempt")
                    # Within a subtransaction, even an empty one, no snapshot can be exported.
                    self._connection.execute(b"release savepoint attempt")
            raise
        with translated():
            self._connection.execute(b"release savepoint attempt")

    def moment(self) -> str | None:
        """Return what is equal for two sessions between which nothing was committed; None on a standby."""
        with translated():
            return snapshot.moment(self._connection)

    def export_snapshot(self) -> Snapshot:
        """Export this transaction's snapshot: good for as long as the transaction lasts."""
        with translated():
            return snapshot.export(self._connection)

    @property
    def locked_bytes(self) -> int | None:
        """Size of what the statement described last reads, the catalog left out; None if unknown."""
        return None if self._locked is None else self._locked.size_bytes

    def rewritten(self) -> list[str]:
        """Return what this transaction has locked and was truncated or rewritten after its snapshot was taken.

        The snapshot sees such a relation empty; a new transaction reads it right.
        """
        if self._locked is not None:  # nothing has been asked since
            return self._locked.rewritten
        with translated():
            return [row[0] for row in self._connection.execute(REWRITTEN_SQL.encode()).fetchall()]

    def require_unwritten(self) -> None:
        """Prove that nothing that was read was truncated or rewritten after the snapshot was taken.

        Raises
        ------
        OverloadedError
            Something was; the same read, started again, is right.
        """
        _refuse(self.rewritten())

    def conclude(self) -> None:
        """End the transaction after the last read, and `require_unwritten`, in one exchange."""
        with translated():
            rows = statements.script(self._lent, f"{REWRITTEN_SQL};{END_SQL}")[0]
        self._ended = True
        _refuse([name for (name,) in rows])

    def restart(self) -> None:
        """End the transaction and begin another, with a new snapshot."""
        with translated():
            self._lent.execute(b"rollback")
            self._begin()

    def run(
        self, request: Request, allocate: Allocate, check: Callable[[], None], make: MakeReply = Reply
    ) -> Reply:
        """Send a statement and return its reply; one per session."""
        reply = self.open_reply(allocate, check, make)
        reply.send(request)
        return reply

    def open_reply(self, allocate: Allocate, check: Callable[[], None], make: MakeReply = Reply) -> Reply:
        """Take the connection over for one or more requests; once per session."""
        reader = open_reader(self._connection, self._options.reader)
        self.reader_name = reader.name
        try:
            self._reply = make(
                reader,
                allocate,
                block_bytes=self._options.block_bytes,
                max_row_bytes=self._options.max_row_bytes,
                check=check,
                patience_s=self._options.patience_s,
            )
        except BaseException:
            reader.close()
            raise
        return self._reply

    def hang_up(self) -> None:
        """End the conversation from another thread; the session's own then fails, and closes the connection."""
        hang_up(self._lent)

    def abandon(self) -> None:
        """Cancel what is being read, drop what has been sent of it, and give the connection back to libpq."""
        if self._reply is None:
            return
        if self._reply.outstanding:
            with translated():
                self._connection.cancel_safe(timeout=CANCEL_WAIT_S)
            self._reply.drain()
        self.finish()

    def finish(self) -> None:
        """Give the connection back to libpq after the last reply, so that the session can ask more."""
        if self._reply is None:
            return
        if not self._settle(self._reply):
            raise DecodeError("PostgreSQL's transaction ended with the reply")
        self._reply = None

    def _settle(self, reply: Reply) -> bool:
        """Take the connection back from the reader; return whether it may be used again."""
        if reply.outstanding:
            reply.close()
            return False
        reply.release()
        # Without a status nothing was asked: the transaction is as libpq knows it.
        ours, libpqs = reply.status or "T", self._lent.pgconn.transaction_status
        # libpq did not see an error that we read: it still says INTRANS, and ROLLBACK puts that right.
        return ours in ("T", "E") and libpqs in STATUS_LETTERS


def _refuse(rewritten: Sequence[str]) -> None:
    if rewritten:
        raise OverloadedError(f"{rewritten[0]!r} was truncated or rewritten while the read began: read again")
