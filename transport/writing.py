"""Transactions that write, and statements outside of any: on connections that nobody else uses meanwhile."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import pq

from kernels.errors import ConnectionLostError, OutcomeUnknownError, PostgresError, RequestError
from transport import statements
from transport.failures import from_psycopg, translated
from transport.opening import identifier, literal
from transport.session import Session
from transport.statements import Row

BEGIN_SQL = """
begin isolation level {isolation} read write;
select set_config('statement_timeout', '{statement_ms}', true), set_config('lock_timeout', '{lock_ms}', true){more}
"""
ABORTED = "25P02"
MODIFIER = re.compile(r"\(\s*-?\d+\s*(,\s*-?\d+\s*)?\)\Z")
ISOLATION = "read committed"


class WriteSession(Session):
    """A connection in a transaction that may write, used by one thread at a time.

    Leaving the context ends the transaction by ROLLBACK, unless `commit` has ended it.
    """

    def _end(self) -> None:
        self._connection.execute(b"rollback")
        self._pool.scrub(self._connection)

    def _begin(self) -> None:
        path = self._options.search_path
        self._connection.execute(
            BEGIN_SQL.format(
                isolation=ISOLATION,
                statement_ms=self._options.statement_ms,
                lock_ms=self._options.lock_ms,
                more=f", set_config('search_path', {literal(identifier(path))}, true)" if path else "",
            ).encode()
        )

    def update(self, sql: str, rows: Sequence[Row], check: Callable[[], None]) -> int:
        """Run a statement once for each row of parameters; see `transport.statements.run`."""
        return statements.run(self._connection, sql, rows, check)

    def exists(self, relation: str) -> bool:
        """Tell whether there is a relation, named as in SQL."""
        return bool(self._one("select pg_catalog.to_regclass($1) is not null", relation))

    def type_called(self, name: str, typmod: int | None = None) -> str | None:
        """Return a type, as SQL writes it, by what somebody calls it; None if there is none.

        Parameters
        ----------
        name : str
        typmod : int, optional
            Its modifier, as PostgreSQL counts them; by default what the name ends with, in brackets.
        """
        said = MODIFIER.search(name) if typmod is None else None
        bare, modifier = (name[: said.start()], said[0]) if said else (name, "")
        try:
            with self.savepoint():
                # Without a modifier, -1: what format_type makes of NULL means char(1) where bpchar was meant.
                asked = "select pg_catalog.format_type(pg_catalog.to_regtype($1), $2)"
                found = self._one(asked, bare, -1 if typmod is None else typmod)
        except PostgresError:  # it is not even written like a type
            return None
        return None if found is None else f"{found}{modifier}"

    def copy_in(self, sql: str, chunks: Iterable[bytes | memoryview]) -> int:
        """Send what a ``COPY … FROM STDIN`` takes; return the number of rows.

        If the chunks end by an exception, nothing is loaded.
        """
        with translated(), self._connection.cursor() as cursor:
            with cursor.copy(sql.encode()) as copy:
                for chunk in chunks:
                    copy.write(chunk)
            return cursor.rowcount

    def _one(self, sql: str, *values: str | int) -> Any:
        with translated():
            row = psycopg.RawCursor(self._connection).execute(sql, values).fetchone()
        return row[0] if row else None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read a reply inside; the transaction goes on also where the reading is given up, or fails."""
        self.execute("savepoint pgflight_reading")
        try:
            yield
        except BaseException:
            self.abandon()
            self.execute("rollback to savepoint pgflight_reading")
            raise
        self.execute("release savepoint pgflight_reading")

    def execute(self, sql: str) -> None:
        """Run a statement of our own."""
        with translated():
            self._connection.execute(sql.encode())

    @property
    def is_open(self) -> bool:
        """Whether the transaction still goes on: a statement may have ended it, and a connection may be lost."""
        return self._connection.pgconn.transaction_status in (
            pq.TransactionStatus.INTRANS,
            pq.TransactionStatus.INERROR,
        )

    def commit(self) -> None:
        """End the transaction, and make what it did last.

        Raises
        ------
        PostgresError
            It could not be: everything is rolled back.
        OutcomeUnknownError
            The connection was lost before PostgreSQL's answer came.
        """
        try:
            done = self._connection.execute(b"commit")
        except psycopg.Error as failure:
            error = from_psycopg(failure)
            if isinstance(error, ConnectionLostError):
                raise OutcomeUnknownError("COMMIT") from failure
            raise error from failure
        if done.statusmessage != "COMMIT":
            raise PostgresError("the transaction was rolled back: a statement in it had failed", ABORTED)


class BareSession(Session):
    """A connection outside of any transaction, for statements that are transactions by themselves."""

    def _end(self) -> None:
        self._connection.execute(b"rollback")
        self._pool.scrub(self._connection)

    def _begin(self) -> None:
        path = self._options.search_path
        self._connection.execute(
            "select pg_catalog.set_config('statement_timeout', %s, false), "
            "pg_catalog.set_config('lock_timeout', %s, false), "
            "pg_catalog.set_config('search_path', coalesce(%s, pg_catalog.current_setting('search_path')), false)",
            [
                str(self._options.statement_ms),
                str(self._options.lock_ms),
                identifier(path) if path else None,
            ],
        )

    def update(self, sql: str, row: Row, check: Callable[[], None]) -> int:
        """Run a statement; return how many rows it changed, -1 where PostgreSQL does not count.

        Raises
        ------
        OutcomeUnknownError
            The connection was lost before PostgreSQL's answer came.
        """
        try:
            changed = statements.run(self._connection, sql, [row], check)
        except ConnectionLostError as failure:
            raise OutcomeUnknownError("the statement") from failure
        if self._connection.pgconn.transaction_status != pq.TransactionStatus.IDLE:
            raise RequestError("transactions are begun and ended by their own calls, not by statements")
        return changed
