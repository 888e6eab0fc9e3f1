"""The one composition: request -> plan -> reply -> scan -> decode -> batches."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import structlog

from flight_server import statement
from flight_server.parallel import ParallelRead
from flight_server.replies import decode_replies
from flight_server.request import ReadRequest
from flight_server.split import Division, divide
from flight_server.telemetry import query_digest
from kernels import wire
from kernels.column import Column
from kernels.decoder import Decoder
from kernels.errors import DeadlineError, PostgresError, TicketError
from kernels.plan import Plan, plan
from kernels.typing import Backend
from transport.catalog import Connection, Table
from transport.memory import RegionPool
from transport.pool import ConnectionPool
from transport.session import Session, SessionOptions

log = structlog.get_logger("pgflight.stream")

MAX_ATTEMPTS = 5
"""How often a read begins anew because DDL got between its snapshot and its locks."""
QUERY_CANCELED = "57014"
Check = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Preview:
    """What is known of a read before it is done.

    Parameters
    ----------
    schema : Schema
    estimated_rows, estimated_bytes : int
        -1 when unknown.
    streams, parts : int
        How many sessions would read it now, and in how many parts.
    why : str
        Why so many.
    """

    schema: pa.Schema
    estimated_rows: int = -1
    estimated_bytes: int = -1
    streams: int = 1
    parts: int = 1
    why: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server allows a read.

    Parameters
    ----------
    max_row_bytes : int
    statement_timeout_s : float
        0 for none.
    lock_timeout_s : float
        0 for none.
    reader : str
    max_streams : int
        Sessions that one read uses at most unless it asks for more.
    """

    max_row_bytes: int = 128 << 20
    statement_timeout_s: float = 0.0
    lock_timeout_s: float = 30.0
    reader: str = "auto"
    max_streams: int = 4


class Pipeline:
    """Reads from one PostgreSQL login with one twin of the kernels.

    Thread-safe: each read has its own session, block and decoder.

    Parameters
    ----------
    pool : ConnectionPool
    memory : RegionPool
    backend : Backend
    limits : Limits
    """

    def __init__(
        self, pool: ConnectionPool, memory: RegionPool, backend: Backend, limits: Limits | None = None
    ) -> None:
        self._pool = pool
        self._memory = memory
        self._backend = backend
        self._limits = limits or Limits()

    def preview(self, request: ReadRequest) -> Preview:
        """Describe a read: schema and estimates; nothing is executed."""
        with self._session(request) as session:
            columns = _describe(session, request)
            planned = plan(columns, request.options.types)
            rows = size = -1
            if request.table is not None and request.is_whole_relation:
                rows, size = session.estimate(statement.relation(request.table))
            division = divide(session, request, columns, self._streams(request))
        return Preview(
            planned.schema,
            rows,
            size if request.columns is None else -1,
            division.streams,
            max(1, len(division.parts)),
            division.why,
        )

    def tables(self, pattern: str) -> list[tuple[Table, pa.Schema]]:
        """Return the relations whose ``schema.name`` is LIKE `pattern`, with their schemas."""
        with self._session(ReadRequest(sql="")) as session:
            return [(table, plan(table.columns).schema) for table in session.tables(pattern)]

    def read(
        self, request: ReadRequest, check: Check, expected_digest: str | None = None
    ) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """Start a read.

        Parameters
        ----------
        request : ReadRequest
        check : callable
            Called at least every 0.1 s while waiting for PostgreSQL; raises to give up.
        expected_digest : str, optional
            Digest of the schema a ticket promised.

        Returns
        -------
        (schema, batches)
            The iterator owns connection and memory: exhausting or closing it gives both back.

        Raises
        ------
        PgflightError
            Before the first batch; later ones are raised by the iterator.
        """
        steps = self._steps(request, check, expected_digest)
        # The first step opens the session and knows the schema: a generator that has been started is sure to
        # run its clean-up, also when no batch is ever asked for.
        schema = next(steps)
        return schema, steps

    def _streams(self, request: ReadRequest) -> int:
        """Return how many sessions a read may use."""
        wanted = request.options.streams or min(self._limits.max_streams, os.cpu_count() or 1)
        return min(wanted, self._pool.max_connections)

    def _session_options(self, request: ReadRequest) -> SessionOptions:
        limits, options = self._limits, request.options
        return SessionOptions(
            block_bytes=options.batch_bytes,
            max_row_bytes=max(limits.max_row_bytes, options.batch_bytes),
            statement_timeout_s=self._timeout_s(request) or None,
            lock_timeout_s=limits.lock_timeout_s,
            reader=limits.reader if options.reader == "auto" else options.reader,
        )

    def _session(self, request: ReadRequest, connection: Connection | None = None) -> Session:
        return Session(self._pool, self._session_options(request), connection=connection)

    def _timeout_s(self, request: ReadRequest) -> float:
        given = [value for value in (request.options.timeout_s, self._limits.statement_timeout_s) if value]
        return min(given, default=0.0)

    def _steps(self, request: ReadRequest, check: Check, expected_digest: str | None) -> Iterator[Any]:
        """Yield the schema, then the batches; log one line when it is over."""
        tally = _Tally(query_digest(statement.select(request)), self._timeout_s(request))

        def still_wanted() -> None:
            check()
            tally.require_time()

        try:
            yield from self._read(request, still_wanted, expected_digest, tally)
            tally.outcome = "complete"
        except PostgresError as failure:
            tally.outcome = failure.sqlstate
            if failure.sqlstate == QUERY_CANCELED:
                tally.require_time()
            raise
        except Exception as failure:
            tally.outcome = type(failure).__name__
            raise
        finally:
            tally.log()

    def _read(
        self, request: ReadRequest, check: Check, expected_digest: str | None, tally: _Tally
    ) -> Iterator[Any]:
        with ExitStack() as stack:
            # Streams asked for by number are taken at once, before anything is held; "auto" takes what is free.
            spare = self._pool.take(max(1, min(request.options.streams, self._pool.max_connections)))
            stack.callback(self._give_back, spare)
            session = stack.enter_context(self._session(request, spare.pop()))
            for _ in range(MAX_ATTEMPTS):
                columns = _describe(session, request)
                planned = plan(columns, request.options.types)
                division = divide(session, request, columns, self._streams(request))
                if not session.rewritten():
                    break
                session.restart()  # DDL came between snapshot and lock; now the lock is held until it is read
            _require_schema(planned, expected_digest)
            tally.facts |= {"backend_pid": session.backend_pid, "why": division.why}
            yield planned.schema
            if division.parts:
                yield from self._read_parts(request, planned, division, session, spare, check, tally)
            else:
                self._give_back(spare)
                yield from self._read_whole(request, planned, session, check, tally)
            session.require_unwritten()

    def _read_whole(
        self, request: ReadRequest, planned: Plan, session: Session, check: Check, tally: _Tally
    ) -> Iterator[pa.RecordBatch]:
        text = statement.with_casts(statement.select(request), planned.casts)
        asked = statement.binary_request(text, request.params, _framing(request))
        decoder = Decoder(
            planned,
            self._backend,
            self._memory.allocate,
            kind=wire.COPY_DATA if asked.copy else wire.DATA_ROW,
            batch_bytes=request.options.batch_bytes,
        )
        reply = session.run(asked, self._memory.allocate, check)
        tally.facts |= {"reader": session.reader_name, "framing": "copy" if asked.copy else "extended"}
        for batch in decode_replies(reply, decoder, copy=asked.copy):
            tally.rows, tally.wire_bytes = decoder.rows, reply.received_bytes
            yield batch
        tally.wire_bytes = reply.received_bytes
        session.finish()

    def _read_parts(
        self,
        request: ReadRequest,
        planned: Plan,
        division: Division,
        session: Session,
        spare: list[Connection],
        check: Check,
        tally: _Tally,
    ) -> Iterator[pa.RecordBatch]:
        read = ParallelRead(
            self._pool,
            self._memory,
            self._backend,
            self._session_options(request),
            planned,
            division,
            ordered=request.options.ordered,
            batch_bytes=request.options.batch_bytes,
        )
        for batch in read.batches(session, spare, check):
            tally.rows += batch.num_rows
            yield batch
        session.finish()
        tally.wire_bytes = read.received_bytes
        tally.facts |= {"reader": session.reader_name, "streams": read.streams, "parts": len(division.parts)}

    def _give_back(self, connections: list[Connection]) -> None:
        while connections:
            self._pool.give_back(connections.pop())


@dataclass(slots=True)
class _Tally:
    """What one read amounts to, for its line in the log."""

    query: str
    timeout_s: float
    started: float = field(default_factory=time.monotonic)
    rows: int = 0
    wire_bytes: int = 0
    outcome: str = "abandoned"
    facts: dict[str, Any] = field(default_factory=dict)

    def require_time(self) -> None:
        """Raise when the read's time is over."""
        if self.timeout_s and time.monotonic() - self.started > self.timeout_s:
            raise DeadlineError(f"the read took longer than {self.timeout_s:g} s")

    def log(self) -> None:
        """Write the line."""
        log.info(
            "read",
            query=self.query,
            outcome=self.outcome,
            rows=self.rows,
            wire_bytes=self.wire_bytes,
            seconds=round(time.monotonic() - self.started, 6),
            **self.facts,
        )


def _describe(session: Session, request: ReadRequest) -> tuple[Column, ...]:
    """Describe the request's statement; a relation read as it is keeps its NOT NULLs."""
    return session.describe(
        statement.select(request), parameters=len(request.params), trust_not_null=request.table is not None
    )


def _require_schema(planned: Plan, digest: str | None) -> None:
    if digest is not None and digest != schema_digest(planned.schema):
        raise TicketError("the schema has changed since the ticket was issued: ask for a new one")


def _framing(request: ReadRequest) -> str:
    return "extended" if request.params else request.options.framing


def schema_digest(schema: pa.Schema) -> str:
    """Return a digest of names, types and nullability."""
    text = "\0".join(f"{field.name}\0{field.type}\0{field.nullable}" for field in schema)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
