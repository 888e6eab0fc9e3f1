"""The one composition: request -> plan -> reply -> scan -> decode -> batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from flight_server import statement
from flight_server.parallel import ParallelRead
from flight_server.planning import Prepared, Preview, estimates, prepare, prepare_ranges, require_schema, shares_of
from flight_server.replies import decode_replies
from flight_server.request import ReadRequest
from flight_server.snapshots import Lease, Share, SnapshotKeeper, SnapshotLimits
from flight_server.tally import Tally
from kernels import wire
from kernels.decoder import Decoder
from kernels.errors import PostgresError, SnapshotEndedError
from kernels.plan import Plan, plan
from kernels.typing import Backend
from transport.catalog import Connection, Table
from transport.memory import RegionPool
from transport.pool import ConnectionPool
from transport.session import Session, SessionOptions
from transport.snapshot import Snapshot

QUERY_CANCELED = "57014"
LOCK_NOT_AVAILABLE = "55P03"
SHARE_LOCK_TIMEOUT_S = 2.0
"""A share that waits for a lock waits for DDL that waits for the share's own snapshot: that one has to end."""
IDLE_MARGIN_S = 60.0
"""PostgreSQL ends a held snapshot by itself so long after it should have ended here."""
Check = Callable[[], None]


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
    snapshots: SnapshotLimits = field(default_factory=SnapshotLimits)


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
        self.keeper = SnapshotKeeper(self._limits.snapshots, self._open_holder)

    def preview(self, request: ReadRequest, *, hold: bool = False) -> Preview:
        """Describe a read: schema and estimates; no row of it is read.

        Parameters
        ----------
        request : ReadRequest
        hold : bool
            Hold a snapshot for as many endpoints as are wanted, if the read can be cut.
        """
        endpoints = request.options.endpoints if hold else 1
        with ExitStack() as stack:
            session = stack.enter_context(self._session(request, idle=endpoints > 1))
            prepared = prepare(session, request, max(endpoints, self._streams(request)))
            rows, size = estimates(session, request)
            shares = shares_of(session, request, prepared) if endpoints > 1 else ()
            held = self.keeper.hold(session, stack) if shares else None
        division = prepared.division
        facts: dict[str, Any] = {"streams": division.streams, "parts": max(1, len(division.parts))}
        if held is not None:
            facts = {"streams": max(1, request.options.streams), "parts": len(shares)}
            facts |= {"endpoints": len(shares), "snapshot": held.snapshot.name}
        return Preview(prepared.plan.schema, rows, size, facts | {"why": division.why}, held, shares)

    def tables(self, pattern: str) -> list[tuple[Table, pa.Schema]]:
        """Return the relations whose ``schema.name`` is LIKE `pattern`, with their schemas."""
        with self._session(ReadRequest(sql="")) as session:
            return [(table, plan(table.columns).schema) for table in session.tables(pattern)]

    def read(
        self, request: ReadRequest, check: Check, expected_digest: str | None = None, share: Share | None = None
    ) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """Start a read.

        Parameters
        ----------
        request : ReadRequest
        check : callable
            Called at least every 0.1 s while waiting for PostgreSQL; raises to give up.
        expected_digest : str, optional
            Digest of the schema a ticket promised.
        share : Share, optional
            Read only these ranges, under this snapshot.

        Returns
        -------
        (schema, batches)
            The iterator owns connection and memory: exhausting or closing it gives both back.

        Raises
        ------
        PgflightError
            Before the first batch; later ones are raised by the iterator.
        """
        steps = self._steps(request, check, expected_digest, share)
        # The first step opens the session and knows the schema: a generator that has been started is sure to
        # run its clean-up, also when no batch is ever asked for.
        schema = next(steps)
        return schema, steps

    def close(self) -> None:
        """End the snapshots that are held."""
        self.keeper.close()

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

    def _session(
        self, request: ReadRequest, connection: Connection | None = None, *, idle: bool = False
    ) -> Session:
        options = self._session_options(request)
        if idle:
            options = replace(options, idle_timeout_s=self._limits.snapshots.max_s + IDLE_MARGIN_S)
        return Session(self._pool, options, connection=connection)

    def _open_holder(self, snapshot: Snapshot) -> Session | None:
        """Open a session that does nothing but hold a snapshot, if a connection is free."""
        free = self._pool.take_free(1)
        options = SessionOptions(idle_timeout_s=self._limits.snapshots.max_s + IDLE_MARGIN_S)
        return Session(self._pool, options, connection=free[0], snapshot=snapshot) if free else None

    def _timeout_s(self, request: ReadRequest) -> float:
        given = [value for value in (request.options.timeout_s, self._limits.statement_timeout_s) if value]
        return min(given, default=0.0)

    def _steps(
        self, request: ReadRequest, check: Check, expected_digest: str | None, share: Share | None
    ) -> Iterator[Any]:
        """Yield the schema, then the batches; log one line when it is over."""
        tally = Tally(statement.select(request), self._timeout_s(request))

        def still_wanted() -> None:
            check()
            tally.require_time()

        try:
            if share is None:
                yield from self._read(request, still_wanted, expected_digest, tally)
            else:
                yield from self._read_share(request, share, still_wanted, expected_digest, tally)
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
        self, request: ReadRequest, check: Check, expected_digest: str | None, tally: Tally
    ) -> Iterator[Any]:
        with ExitStack() as stack:
            # Streams asked for by number are taken at once, before anything is held; "auto" takes what is free.
            spare = self._take(request, stack)
            session = stack.enter_context(self._session(request, spare.pop()))
            prepared = prepare(session, request, self._streams(request))
            require_schema(prepared.plan, expected_digest)
            tally.facts |= {"backend_pid": session.backend_pid, "why": prepared.division.why}
            yield prepared.plan.schema
            if prepared.division.parts:
                yield from self._read_parts(request, prepared, session, spare, check, tally)
            else:
                self._give_back(spare)
                yield from self._read_whole(request, prepared.plan, session, check, tally)
            session.require_unwritten()

    def _read_share(
        self, request: ReadRequest, share: Share, check: Check, expected_digest: str | None, tally: Tally
    ) -> Iterator[Any]:
        options = replace(
            self._session_options(request), lock_timeout_s=SHARE_LOCK_TIMEOUT_S, parallel_query=False
        )
        with ExitStack() as stack:
            held = stack.enter_context(self.keeper.reading(share.lease))

            def still_wanted() -> None:
                check()
                held.require_wanted()

            spare = self._take(request, stack)
            session = Session(self._pool, options, connection=spare.pop(), snapshot=held.snapshot)
            stack.enter_context(session)
            stack.enter_context(self._yielding_to_ddl(share.lease))
            prepared = prepare_ranges(session, request, share.ranges, max(1, request.options.streams))
            require_schema(prepared.plan, expected_digest)
            tally.facts |= {"backend_pid": session.backend_pid, "lease": share.lease.id}
            yield prepared.plan.schema
            yield from self._read_parts(request, prepared, session, spare, still_wanted, tally)
            session.require_unwritten()

    @contextmanager
    def _yielding_to_ddl(self, lease: Lease) -> Iterator[None]:
        """End a lease whose reader waits for a lock: in that queue stands DDL, which waits for the lease."""
        try:
            yield
        except PostgresError as failure:
            if failure.sqlstate != LOCK_NOT_AVAILABLE:
                raise
            self.keeper.end(lease, "DDL waits for a lock")
            raise SnapshotEndedError("DDL waits for the table") from failure

    def _take(self, request: ReadRequest, stack: ExitStack) -> list[Connection]:
        """Take the connections that a read asks for by number; what is left of them goes back with `stack`."""
        spare = self._pool.take(max(1, min(request.options.streams, self._pool.max_connections)))
        stack.callback(self._give_back, spare)
        return spare

    def _read_whole(
        self, request: ReadRequest, planned: Plan, session: Session, check: Check, tally: Tally
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
        prepared: Prepared,
        session: Session,
        spare: list[Connection],
        check: Check,
        tally: Tally,
    ) -> Iterator[pa.RecordBatch]:
        read = ParallelRead(
            self._pool,
            self._memory,
            self._backend,
            self._session_options(request),
            prepared.plan,
            prepared.division,
            ordered=request.options.ordered,
            batch_bytes=request.options.batch_bytes,
        )
        for batch in read.batches(session, spare, check):
            tally.rows += batch.num_rows
            yield batch
        session.finish()
        tally.wire_bytes = read.received_bytes
        tally.facts |= {
            "reader": session.reader_name,
            "streams": read.streams,
            "parts": len(prepared.division.parts),
        }

    def _give_back(self, connections: list[Connection]) -> None:
        while connections:
            self._pool.give_back(connections.pop())


def _framing(request: ReadRequest) -> str:
    return "extended" if request.params else request.options.framing
