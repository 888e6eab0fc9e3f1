"""Statements that change something, run through libpq: with parameters, in groups, given up when unwanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from psycopg import pq
from psycopg.pq import abc

from kernels.errors import RequestError
from transport.catalog import Connection
from transport.failures import require_ok, translated
from transport.readiness import wait_for

Row = Sequence[str | None]
Texts = list[tuple[str, ...]]
"""Rows of text."""
LOOK_S = 0.1
"""How often a waiting caller looks whether it is still wanted."""
GROUP_ROWS = 256
"""Rows sent before their results are read: neither side's buffers fill up while the other waits."""
CANCEL_WAIT_S = 1.0
DONE = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK, pq.ExecStatus.EMPTY_QUERY)
COPYING = (pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_BOTH)


def run(connection: Connection, sql: str, rows: Sequence[Row], check: Callable[[], None]) -> int:
    """Run a statement once for each row of parameters; return how many rows it changed or returned in all.

    Parameters
    ----------
    connection : Connection
    sql : str
        One statement.
    rows : sequence of rows of (str or None)
        Text forms of the parameters; one empty row for a statement without any.
    check : callable
        Called at least every 0.1 s; raises to give up: the statement is cancelled and its end awaited.

    Returns
    -------
    int
        -1 where PostgreSQL does not count, as for DDL.

    Raises
    ------
    PostgresError
        PostgreSQL refuses; what the rows before have done is still to be rolled back.
    ConnectionLostError
        The connection is gone.
    """
    talk = _Talk(connection, check)
    with translated():
        try:
            return talk.once(sql, rows[0]) if len(rows) == 1 else talk.many(sql, rows)
        finally:
            talk.settle()


def describe(connection: Connection, sql: str, *, before: Sequence[str], after: str) -> tuple[abc.PGresult, Texts]:
    """Parse a statement and return its description, in one exchange.

    Parameters
    ----------
    connection : Connection
    sql : str
    before : sequence of str
        Statements that are run first.
    after : str
        A query that is run when the statement has been parsed; its rows are returned as well.

    Raises
    ------
    PostgresError
        PostgreSQL refuses the text.
    """
    talk = _Talk(connection, _go_on)
    try:
        return talk.describe(sql, before, after)
    finally:
        talk.settle()


def script(connection: Connection, sql: str) -> list[Texts]:
    """Run statements of our own in one exchange; return the rows of each.

    Raises
    ------
    PostgresError
        PostgreSQL refuses one; those after it are not run.
    """
    talk = _Talk(connection, _go_on)
    try:
        return [_texts(result) for result in talk.script(sql)]
    finally:
        talk.settle()


class _Talk:
    """What is said to PostgreSQL, and what of its answers is still to come."""

    def __init__(self, connection: Connection, check: Callable[[], None]) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._check = check
        self._asked = False
        self._nonblocking = connection.pgconn.nonblocking
        self._pgconn.nonblocking = 1

    def once(self, sql: str, row: Row) -> int:
        self._pgconn.send_query_params(sql.encode(), _encoded(row))
        return _counted(self._results())

    def many(self, sql: str, rows: Sequence[Row]) -> int:
        self._pgconn.enter_pipeline_mode()
        self._pgconn.send_prepare(b"", sql.encode())
        counts = [self._group(rows[at : at + GROUP_ROWS]) for at in range(0, max(1, len(rows)), GROUP_ROWS)]
        return sum(counts) if min(counts) >= 0 else -1

    def describe(self, sql: str, before: Sequence[str], after: str) -> tuple[abc.PGresult, Texts]:
        self._pgconn.enter_pipeline_mode()
        for first in before:
            self._pgconn.send_query_params(first.encode(), None)
        self._pgconn.send_prepare(b"", sql.encode())
        self._pgconn.send_describe_prepared(b"")
        self._pgconn.send_query_params(after.encode(), None)
        self._pgconn.pipeline_sync()
        *_, described, last = self._results()
        return described, _texts(last)

    def script(self, sql: str) -> list[abc.PGresult]:
        self._pgconn.send_query(sql.encode())
        return self._results()

    def settle(self) -> None:
        """Leave the connection idle: cancel what is under way, and read its end."""
        if self._pgconn.status != pq.ConnStatus.OK:
            return
        if self._asked:
            self._connection.cancel_safe(timeout=CANCEL_WAIT_S)
            self._check = _go_on
            self._results(proper=False)
        if self._piped:
            self._pgconn.exit_pipeline_mode()
        self._pgconn.nonblocking = self._nonblocking

    def _group(self, rows: Sequence[Row]) -> int:
        for row in rows:
            self._pgconn.send_query_prepared(b"", _encoded(row))
        self._pgconn.pipeline_sync()
        results = self._results()
        return _counted(results) if rows else 0

    @property
    def _piped(self) -> bool:
        return self._pgconn.pipeline_status != pq.PipelineStatus.OFF

    def _results(self, *, proper: bool = True) -> list[abc.PGresult]:
        """Read to the end of the statement, or of the group; then raise the first error, if that is wanted."""
        self._asked = True
        found: list[abc.PGresult] = []
        while True:
            self._wait()
            result = self._pgconn.get_result()
            if result is None:
                if not self._piped:
                    break
            elif result.status == pq.ExecStatus.PIPELINE_SYNC:
                break
            elif result.status in COPYING:
                raise RequestError("COPY is not run as a statement: ingest, or read")
            else:
                found.append(result)
        self._asked = False
        for result in found if proper else ():
            if result.status not in DONE:
                require_ok(result)
        return found

    def _wait(self) -> None:
        """Send what is to be sent, and wait until a result can be had without waiting."""
        while True:
            unsent = self._pgconn.flush()
            if not self._pgconn.is_busy():
                return
            if wait_for(self._pgconn.socket, LOOK_S, write=bool(unsent)):
                self._pgconn.consume_input()
            self._check()


def _go_on() -> None:
    """Wait for the end of what was cancelled, whoever still wants it."""


def _texts(result: abc.PGresult) -> Texts:
    columns = range(result.nfields)
    rows = ([result.get_value(row, column) or b"" for column in columns] for row in range(result.ntuples))
    return [tuple(value.decode() for value in row) for row in rows]


def _counted(results: Sequence[abc.PGresult]) -> int:
    counts = [result.command_tuples for result in results if result.command_status]
    known = [count for count in counts if count is not None]
    return sum(known) if known else -1


def _encoded(row: Row) -> list[bytes | None] | None:
    return [None if value is None else value.encode() for value in row] or None
