"""What writes: run once, by the last call whose end a client is sure to wait for; its result is kept."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa

from flight_server.reading import statement
from flight_server.reading.pipeline import Pipeline
from flight_server.request import ReadRequest, Row
from flight_server.sql.calls import Call
from flight_server.sql.describe import PreparedStatement, describe_in
from flight_server.sql.effects import Effects
from flight_server.sql.shelf import Shelf, packed
from flight_server.sql.transactions import Transactions
from flight_sql import Stream
from kernels.errors import RequestError, TicketError
from transport.session import Session
from transport.writing import BareSession, WriteSession

MAX_RESULT_BYTES = 64 << 20
MAX_RESULTS = 1024
MAX_RESULTS_BYTES = 256 << 20
NO_PARAMETERS: tuple[Row, ...] = ((),)


class Writes:
    """Runs what writes, each statement in its client's transaction or in one of its own.

    Parameters
    ----------
    pipeline : Pipeline
    transactions : Transactions
    lifetime_s : float
        How long results are kept.
    """

    def __init__(self, pipeline: Pipeline, transactions: Transactions, lifetime_s: float) -> None:
        self.transactions = transactions
        self._pipeline = pipeline
        self._sessions = pipeline.sessions
        self._effects = Effects(pipeline.sessions)
        self._results: Shelf[pa.Buffer] = Shelf(MAX_RESULTS, MAX_RESULTS_BYTES, lifetime_s)
        self._executed: Shelf[bool] = Shelf(1 << 16, 1 << 16, lifetime_s)

    def may_write(self, request: ReadRequest) -> bool:
        """Tell whether a statement has to be run by `execute`."""
        return self._effects.may_write(request)

    def current(self, call: Call, transaction: str) -> str:
        """Return the transaction in which a statement runs that was prepared in one."""
        return self.transactions.current(call.identity, transaction, call.peer)

    def is_inside(self, call: Call, transaction: str) -> bool:
        """Tell whether a read has to see what a transaction has done so far."""
        return bool(transaction) and self.transactions.is_touched(call.identity, transaction)

    def describe(self, call: Call, request: ReadRequest, transaction: str) -> PreparedStatement:
        """Ask PostgreSQL for the parameters and the result of a statement of any kind; it does not run."""
        if self.is_inside(call, transaction):
            with self.transactions.use(call.identity, transaction, call.check) as session, session.reading():
                return describe_in(session, request)
        with self._sessions.open(request) as reading:
            return describe_in(reading, request)

    def update(self, call: Call, request: ReadRequest, transaction: str, rows: Sequence[Row]) -> int:
        """Run a statement once for each row of parameters, all or none; return how many rows it changed.

        Returns
        -------
        int
            -1 where PostgreSQL does not count.
        """
        text = statement.select(request)
        if "\0" in text:
            raise RequestError("the statement contains a zero byte")
        if transaction:
            with self.transactions.use(call.identity, transaction, call.check) as session:
                return session.update(text, rows, call.check)
        options = self._sessions.options(request)
        if len(rows) == 1:  # PostgreSQL's own: some statements refuse to run in another
            with BareSession(self._sessions.pool, options) as bare:
                return bare.update(text, rows[0], call.check)
        with WriteSession(self._sessions.pool, options) as session:
            changed = session.update(text, rows, call.check)
            session.commit()
            return changed

    def execute(self, call: Call, request: ReadRequest, transaction: str) -> tuple[pa.Schema, str, int]:
        """Run a statement, and keep the rows that it returns.

        Returns
        -------
        (schema, name, rows)
            The name by which `kept` returns the rows, empty where the statement returns no columns; `rows` then
            are those that it changed.
        """
        if not len(self.describe(call, request, transaction).result):
            rows = request.rows if request.rows is not None else (request.params,)
            return pa.schema([]), "", self.update(call, request, transaction, rows)
        with self.transaction(call, request, transaction) as session:
            table = self._collect(call, request, session)
            if not transaction:
                session.commit()
        name = secrets.token_hex(16)
        buffer = packed(table)
        self._executed.put((call.identity, name), True, 1)
        self._results.put((call.identity, name), buffer, buffer.size)
        return table.schema, name, table.num_rows

    def kept(self, call: Call, name: str) -> Stream:
        """Return the rows of a statement that was executed.

        Raises
        ------
        TicketError
            They are not kept any more, or elsewhere.
        """
        buffer = self._results.get((call.identity, name))
        if buffer is None:
            executed = self._executed.get((call.identity, name))
            raise TicketError(
                "the statement was already executed, and its result is no longer kept: it is not executed again"
                if executed
                else "the statement was executed by another server, or too long ago: it is not executed again"
            )
        reader = pa.ipc.open_stream(buffer)
        return reader.schema, iter(reader)

    def read(self, call: Call, request: ReadRequest, transaction: str, digest: str | None) -> Stream:
        """Read in a transaction; its other statements wait until the result is read to its end, or closed."""
        steps = self._steps(call, request, transaction, digest)
        return next(steps), steps

    def _steps(self, call: Call, request: ReadRequest, transaction: str, digest: str | None) -> Iterator[object]:
        with self.transactions.use(call.identity, transaction, call.check) as session, session.reading():
            schema, batches = self._pipeline.read(
                request, call.check, digest, identity=call.identity, within=session
            )
            yield schema
            yield from batches

    @contextmanager
    def transaction(self, call: Call, request: ReadRequest, name: str) -> Iterator[WriteSession]:
        """Write inside: in a client's transaction, or in one that is rolled back if nobody commits it."""
        if name:
            with self.transactions.use(call.identity, name, call.check) as session:
                yield session
        else:
            with WriteSession(self._sessions.pool, self._sessions.options(request)) as session:
                yield session

    def _collect(self, call: Call, request: ReadRequest, session: Session) -> pa.Table:
        schema, batches = self._pipeline.read(request, call.check, identity=call.identity, within=session)
        found: list[pa.RecordBatch] = []
        size = 0
        for batch in batches:
            found.append(batch)
            size += batch.nbytes
            if size > MAX_RESULT_BYTES:
                raise RequestError(
                    f"a statement that writes may return {MAX_RESULT_BYTES} bytes at most: it is rolled back"
                )
        return pa.Table.from_batches(found, schema)
