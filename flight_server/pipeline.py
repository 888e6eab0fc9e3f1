"""The one composition: request -> plan -> reply -> scan -> decode -> batches."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import structlog

from flight_server import statement
from flight_server.request import ReadRequest
from flight_server.telemetry import query_digest
from kernels import layout, wire
from kernels.decoder import Decoder
from kernels.errors import CancelledError, DeadlineError, PostgresError, TicketError
from kernels.plan import Plan, plan
from kernels.typing import Backend
from transport.catalog import Table
from transport.memory import RegionPool
from transport.pool import ConnectionPool
from transport.reply import Reply
from transport.session import Session, SessionOptions

log = structlog.get_logger("pgflight.stream")

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
    """

    schema: pa.Schema
    estimated_rows: int = -1
    estimated_bytes: int = -1


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
    """

    max_row_bytes: int = 128 << 20
    statement_timeout_s: float = 0.0
    lock_timeout_s: float = 30.0
    reader: str = "auto"


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
            planned = _plan(session, request)
            if request.table is None:
                return Preview(planned.schema)
            rows, size = session.estimate(statement.relation(request.table))
        if not request.is_whole_relation:
            rows = size = -1
        return Preview(planned.schema, rows, size if request.columns is None else -1)

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

    def _session(self, request: ReadRequest) -> Session:
        limits, options = self._limits, request.options
        return Session(
            self._pool,
            SessionOptions(
                block_bytes=options.batch_bytes,
                max_row_bytes=max(limits.max_row_bytes, options.batch_bytes),
                statement_timeout_s=self._timeout_s(request) or None,
                lock_timeout_s=limits.lock_timeout_s,
                reader=limits.reader if options.reader == "auto" else options.reader,
            ),
        )

    def _timeout_s(self, request: ReadRequest) -> float:
        given = [value for value in (request.options.timeout_s, self._limits.statement_timeout_s) if value]
        return min(given, default=0.0)

    def _steps(self, request: ReadRequest, check: Check, expected_digest: str | None) -> Iterator[pa.Schema]:
        started = time.monotonic()
        timeout_s = self._timeout_s(request)
        text = statement.select(request)
        call = log.bind(query=query_digest(text))
        rows = received = 0
        outcome = "abandoned"

        def still_wanted() -> None:
            check()
            if timeout_s and time.monotonic() - started > timeout_s:
                raise DeadlineError(f"the read took longer than {timeout_s:g} s")

        try:
            with self._session(request) as session:
                call = call.bind(backend_pid=session.backend_pid)
                planned = _plan(session, request)
                _require_schema(planned, expected_digest)
                asked = statement.binary_request(
                    statement.with_casts(text, planned.casts), request.params, _framing(request)
                )
                decoder = Decoder(
                    planned,
                    self._backend,
                    self._memory.allocate,
                    kind=wire.COPY_DATA if asked.copy else wire.DATA_ROW,
                    batch_bytes=request.options.batch_bytes,
                )
                reply = session.run(asked, self._memory.allocate, still_wanted)
                call = call.bind(reader=session.reader_name, framing="copy" if asked.copy else "extended")
                yield planned.schema
                for batch in decode_replies(reply, decoder, copy=asked.copy):
                    rows, received = decoder.rows, reply.received_bytes
                    yield batch
                rows, received = decoder.rows, reply.received_bytes
            outcome = "complete"
        except PostgresError as failure:
            outcome = failure.sqlstate
            if failure.sqlstate == QUERY_CANCELED and timeout_s:
                raise DeadlineError(f"the read took longer than {timeout_s:g} s") from failure
            raise
        except CancelledError:
            outcome = "cancelled"
            raise
        except Exception as failure:
            outcome = type(failure).__name__
            raise
        finally:
            call.info(
                "read",
                outcome=outcome,
                rows=rows,
                wire_bytes=received,
                seconds=round(time.monotonic() - started, 6),
            )


def _plan(session: Session, request: ReadRequest) -> Plan:
    """Describe the request's statement and decide how its rows are decoded."""
    columns = session.describe(
        statement.select(request), parameters=len(request.params), trust_not_null=request.table is not None
    )
    return plan(columns, request.options.types)


def _require_schema(planned: Plan, digest: str | None) -> None:
    if digest is not None and digest != schema_digest(planned.schema):
        raise TicketError("the schema has changed since the ticket was issued: ask for a new one")


def _framing(request: ReadRequest) -> str:
    return "extended" if request.params else request.options.framing


def decode_replies(
    reply: Reply, decoder: Decoder, *, copy: bool, on_complete: Callable[[], None] = lambda: None
) -> Iterator[pa.RecordBatch]:
    """Turn replies into batches, block by block, and prove each to be whole.

    A reply is whole when its chain of messages led to ReadyForQuery, CommandComplete was among them with the
    number of rows that were decoded, and a COPY ended with its trailer at a row boundary.

    Parameters
    ----------
    reply : Reply
        With at least one request sent.
    decoder : Decoder
    copy : bool
        Whether the replies are COPY streams.
    on_complete : callable
        Called after each whole reply; it may send the next request.
    """
    rows, trailer = decoder.rows, False
    while reply.outstanding:
        reply.fill()
        while reply.outstanding:
            found = decoder.scan(reply.block, reply.begin, reply.end, reply.base)
            if found.rows:
                yield decoder.decode(reply.block, found, reply.base)
            reply.begin = found.position
            if found.reason == layout.SCAN_TRAILER:
                trailer = True
            elif found.reason == layout.SCAN_MESSAGE:
                if reply.message():
                    reply.require_complete(decoder.rows - rows, trailer=trailer if copy else None)
                    rows, trailer = decoder.rows, False
                    decoder.expect_header()
                    on_complete()
            elif found.reason == layout.SCAN_MORE:
                break


def schema_digest(schema: pa.Schema) -> str:
    """Return a digest of names, types and nullability."""
    text = "\0".join(f"{field.name}\0{field.type}\0{field.nullable}" for field in schema)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
