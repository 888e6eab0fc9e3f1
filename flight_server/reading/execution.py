"""How the rows of a read come about: whole, in parts, as a share of a held snapshot, or from the spool."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from flight_server.reading import statement
from flight_server.reading.decoding import Consumer, Decodings, side_of
from flight_server.reading.parallel import ParallelRead
from flight_server.reading.planning import Prepared, describe, prepare, prepare_ranges, require_schema
from flight_server.reading.repeated import repeated
from flight_server.reading.replies import decode_replies
from flight_server.reading.sessions import Sessions
from flight_server.reading.snapshots import Lease, Share, SnapshotKeeper
from flight_server.reading.split import Division
from flight_server.reading.spooling import SpooledReads
from flight_server.reading.tally import Tally
from flight_server.reading.transports import Transports
from flight_server.request import ReadRequest
from kernels.errors import PostgresError, RequestError, SnapshotEndedError
from kernels.plan import plan
from transport.catalog import Connection
from transport.modes.moving import FILE, Moving
from transport.session import Session
from transport.spool import Recording

LOCK_NOT_AVAILABLE = "55P03"
WHOLE = Division((), 1, "a client's transaction is open")
Steps = Generator[Any, None, None]
"""The schema, then the batches."""


@dataclass(frozen=True, slots=True)
class Read:
    """One read that was asked for.

    Parameters
    ----------
    request : ReadRequest
    check : callable
        Called at least every 0.1 s while waiting; raises to give up.
    tally : Tally
    identity : str
        Who asks.
    digest : str or None
        Of the schema that its ticket promised.
    lease : str
        By which lease connection the client takes device batches.
    """

    request: ReadRequest
    check: Callable[[], None]
    tally: Tally
    identity: str = ""
    digest: str | None = None
    lease: str = ""


class Execution:
    """Carries reads out.  Thread-safe: each has its own session, block and decoder.

    Parameters
    ----------
    sessions : Sessions
    decodings : Decodings
    keeper : SnapshotKeeper
    spooled : SpooledReads
    transports : Transports
    """

    def __init__(
        self,
        sessions: Sessions,
        decodings: Decodings,
        keeper: SnapshotKeeper,
        spooled: SpooledReads,
        transports: Transports,
    ) -> None:
        self._sessions = sessions
        self._decodings = decodings
        self._keeper = keeper
        self._spooled = spooled
        self._transports = transports

    def kept(self, read: Read) -> Steps:
        """Serve a read from the spool, or carry it out and keep it there."""
        entry = self._spooled.find(read.request, read.identity)
        if entry is not None:
            with entry:
                yield from self._spooled.steps(
                    entry, read.request, Consumer(read.check, read.lease), read.digest, read.tally
                )
            return
        with self._spooled.record(read.request, read.identity) as recording:
            yield from self.fresh(read, recording)

    def fresh(self, read: Read, recording: Recording | None = None) -> Steps:
        """Ask PostgreSQL, with as many sessions as are proven to give the same rows."""
        request, tally = read.request, read.tally
        with ExitStack() as stack:
            # Streams asked for by number are taken at once, before anything is held; "auto" takes what is free.
            spare = self._sessions.take(request, stack)
            session = stack.enter_context(self._sessions.open(request, spare.pop()))
            by_file = request.options.transport == FILE
            prepared = prepare(session, request, 1 if by_file else self._sessions.streams(request))
            require_schema(prepared.plan, read.digest)
            tally.facts |= {"backend_pid": session.backend_pid, "why": prepared.division.why}
            if prepared.division.parts and request.options.ordered:
                recording = None  # its streams hold parts in the order they were taken
            moving = stack.enter_context(
                self._transports.moving(request.options, tally, prepared.division.streams, recording)
            )
            yield prepared.plan.schema
            if by_file:
                self._sessions.give_back(spare)
                yield from self._written(read, prepared, session, moving)
            elif prepared.division.parts:
                yield from self._parts(read, prepared, session, spare, moving)
            else:
                self._sessions.give_back(spare)
                yield from self._whole(read, prepared, session, moving)
            session.conclude()
            if recording is not None:
                copy = tally.facts["framing"] == "copy"
                tally.facts["kept"] = recording.publish(prepared.columns, copy=copy, rows=tally.rows)

    def within(self, read: Read, session: Session) -> Steps:
        """Read in a transaction that goes on afterwards, as its own statements see the database."""
        request = read.request
        columns = describe(session, request)
        planned = plan(columns, request.options.types)
        require_schema(planned, read.digest)
        read.tally.facts |= {"backend_pid": session.backend_pid, "why": "a client's transaction is open"}
        yield planned.schema
        if request.options.transport == FILE:
            raise RequestError("transport=file: another login writes the file, which sees no open transaction")
        with self._transports.moving(request.options, read.tally) as moving:
            yield from self._whole(read, Prepared(columns, planned, WHOLE), session, moving)

    def share(self, read: Read, share: Share) -> Steps:
        """Read page ranges under a snapshot that is held for several readers."""
        request = read.request
        with ExitStack() as stack:
            held = stack.enter_context(self._keeper.reading(share.lease))
            spare = self._sessions.take(request, stack)
            session = stack.enter_context(self._sessions.open_share(request, spare.pop(), held.snapshot))
            stack.enter_context(self._yielding_to_ddl(share.lease))
            prepared = prepare_ranges(session, request, share.ranges, max(1, request.options.streams))
            require_schema(prepared.plan, read.digest)
            read.tally.facts |= {"backend_pid": session.backend_pid, "lease": share.lease.id}
            moving = stack.enter_context(
                self._transports.moving(request.options, read.tally, prepared.division.streams)
            )
            yield prepared.plan.schema
            for batch in self._parts(read, prepared, session, spare, moving):
                held.require_wanted()
                yield batch
            session.conclude()

    @contextmanager
    def _yielding_to_ddl(self, lease: Lease) -> Iterator[None]:
        """End a lease whose reader waits for a lock: in that queue stands DDL, which waits for the lease."""
        try:
            yield
        except PostgresError as failure:
            if failure.sqlstate != LOCK_NOT_AVAILABLE:
                raise
            self._keeper.end(lease, "DDL waits for a lock")
            raise SnapshotEndedError("DDL waits for the table") from failure

    def _whole(self, read: Read, prepared: Prepared, session: Session, moving: Moving) -> Iterator[pa.RecordBatch]:
        request, tally = read.request, read.tally
        decoding, batch_bytes = self._decodings.choose(request.options), request.options.batch_target()
        consumer = Consumer(read.check, read.lease, moving.new_counters)
        if request.rows is not None:
            yield from repeated(request, prepared, session, decoding, consumer, tally, moving)
            return
        text = statement.with_casts(statement.select(request), prepared.plan.casts)
        framing = "extended" if request.params else request.options.framing
        asked = statement.binary_request(text, request.params, framing)
        decoder = decoding.decoder(prepared.plan, copy=asked.copy, batch_bytes=batch_bytes, consumer=consumer)
        reply = session.run(asked, decoding.allocate, read.check, moving.to(side_of(decoder)))
        tally.watch.hang_up = session.hang_up
        tally.facts |= {"reader": session.reader_name, "framing": "copy" if asked.copy else "extended"}
        for batch in decode_replies(
            reply, decoder, copy=asked.copy, piece_bytes=decoding.piece_bytes(batch_bytes), stages=tally.stages
        ):
            tally.rows, tally.wire_bytes = decoder.rows, reply.received_bytes
            yield batch
        tally.wire_bytes = reply.received_bytes
        session.finish()

    def _written(
        self, read: Read, prepared: Prepared, session: Session, moving: Moving
    ) -> Iterator[pa.RecordBatch]:
        decoding = self._decodings.choose(read.request.options)
        files = self._transports.files
        return files.batches(
            read.request, prepared, session, self._sessions, decoding, moving, read.tally, read.check
        )

    def _parts(
        self,
        read: Read,
        prepared: Prepared,
        session: Session,
        spare: list[Connection],
        moving: Moving,
    ) -> Iterator[pa.RecordBatch]:
        request, tally = read.request, read.tally
        parallel = ParallelRead(
            self._sessions,
            self._decodings.choose(request.options),
            request.options,
            self._sessions.options(request),
            prepared,
            moving,
            lease=read.lease,
            stages=tally.stages,
        )
        tally.watch.hang_up = parallel.hang_up
        tally.facts["framing"] = "extended"
        for batch in parallel.batches(session, spare, read.check):
            tally.rows += batch.num_rows
            yield batch
        session.finish()
        tally.wire_bytes = parallel.received_bytes
        tally.facts |= {
            "reader": session.reader_name,
            "streams": parallel.streams,
            "parts": len(prepared.division.parts),
        }
