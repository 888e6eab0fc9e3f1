"""One read by several sessions that share a snapshot."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import pyarrow as pa
import structlog

from flight_server.options import ReadOptions
from flight_server.reading.decoding import Consumer, Decoding, side_of
from flight_server.reading.merge import Exchange
from flight_server.reading.planning import Prepared
from flight_server.reading.replies import decode_replies
from flight_server.reading.sessions import Sessions
from flight_server.reading.split import Part
from flight_server.reading.stages import Stages
from flight_server.reading.statement import with_casts
from kernels.errors import CancelledError, PgflightError, PostgresError, SnapshotEndedError
from transport.catalog import Connection
from transport.messages import Request
from transport.modes.moving import Moving
from transport.opening import SessionOptions
from transport.session import Session
from transport.snapshot import Snapshot

log = structlog.get_logger("pgflight.stream")

LOCK_NOT_AVAILABLE = "55P03"
WORKER_LOCK_TIMEOUT_S = 0.1
"""A worker that waits for a lock waits for DDL that waits for our own leader: it steps back instead."""


class ParallelRead:
    """Reads the parts of a division with as many sessions as can be had.

    The leader's transaction holds the snapshot and the locks until everything is read; workers import the
    snapshot.  The leader reads too, and can read every part alone: a worker that finds a relation's lock queue
    occupied puts its part back and leaves.

    Parameters
    ----------
    sessions : Sessions
    decoding : Decoding
    read_options : ReadOptions
    session_options : SessionOptions
        Of the leader.
    prepared : Prepared
    moving : Moving
        Makes each session's reply.
    lease : str
        By which lease connection the client takes device batches.
    stages : Stages, optional
        Where the time of all streams goes is added up there.
    """

    def __init__(
        self,
        sessions: Sessions,
        decoding: Decoding,
        read_options: ReadOptions,
        session_options: SessionOptions,
        prepared: Prepared,
        moving: Moving,
        *,
        lease: str = "",
        stages: Stages | None = None,
    ) -> None:
        division = prepared.division
        self._pool = sessions.pool
        self._decoding = decoding
        self._options = session_options
        self._plan = prepared.plan
        self._exchange = Exchange(division.parts, division.streams, ordered=read_options.ordered)
        self._batch_bytes = read_options.batch_target(division.streams)
        self._moving = moving
        self._consumer = Consumer(self._exchange.require_running, lease, moving.new_counters)
        self._totals = threading.Lock()
        self._stages = stages or Stages()
        self._sessions: list[Session] = []
        self.wanted = division.streams
        self.streams = 1
        self.rows = 0
        self.received_bytes = 0

    def batches(
        self, leader: Session, spare: list[Connection], check: Callable[[], None]
    ) -> Iterator[pa.RecordBatch]:
        """Yield all batches.

        Parameters
        ----------
        leader : Session
        spare : list of Connection
            Connections taken for workers; those that are used are removed.  Without any, workers get what is free.
        check : callable
            Called on this thread; raises to give up.

        When the iterator ends, for whatever reason, every worker's session has been left.
        """
        with ExitStack() as stack:
            sessions = [
                leader,
                *(self._workers(stack, leader.export_snapshot(), spare) if self.wanted > 1 else ()),
            ]
            self.streams = len(sessions)
            self._sessions = sessions
            threads = [
                threading.Thread(target=self._work, args=(session, session is leader), name="stream", daemon=True)
                for session in sessions
            ]
            stack.callback(self._join, threads)
            for thread in threads:
                thread.start()
            yield from self._exchange.batches(check)

    def hang_up(self) -> None:
        """End all conversations with PostgreSQL, from another thread."""
        for session in self._sessions:
            session.hang_up()

    def _workers(self, stack: ExitStack, snapshot: Snapshot, spare: list[Connection]) -> list[Session]:
        """Open workers on connections that are free now: a read that holds one never waits for another."""
        if not spare:
            spare += self._pool.take_free(self.wanted - 1)
        options = replace(self._options, lock_timeout_s=WORKER_LOCK_TIMEOUT_S, parallel_query=False)
        sessions: list[Session] = []
        while spare and len(sessions) < self.wanted - 1:
            session = Session(self._pool, options, connection=spare.pop(), snapshot=snapshot)
            try:
                sessions.append(stack.enter_context(session))
            except SnapshotEndedError:  # the leader lives: this connection leads to another server
                log.info("stream left", reason="its connection leads to another server than the leader's")
        return sessions

    def _join(self, threads: list[threading.Thread]) -> None:
        self._exchange.stop()
        for thread in threads:
            thread.join()

    def _work(self, session: Session, is_leader: bool) -> None:
        """Read parts until none is left (runs in a thread of its own)."""
        in_flight: deque[Part] = deque()
        try:
            self._read_parts(session, in_flight)
        except CancelledError:
            self._exchange.stop()
        except PostgresError as failure:
            if is_leader or failure.sqlstate != LOCK_NOT_AVAILABLE:
                self._exchange.fail(failure)
            else:
                log.info("stream left", backend_pid=session.backend_pid, reason="a lock is being waited for")
                self._exchange.put_back(list(in_flight))
        except PgflightError as failure:
            self._exchange.fail(failure)
        except Exception as failure:  # noqa: BLE001 (a thread's end: the consumer raises it)
            self._exchange.fail(failure)

    def _read_parts(self, session: Session, in_flight: deque[Part]) -> None:
        decoder = self._decoding.decoder(
            self._plan, copy=False, batch_bytes=self._batch_bytes, consumer=self._consumer
        )
        pieces = self._decoding.piece_bytes(self._batch_bytes)
        reply = session.open_reply(
            self._decoding.allocate, self._consumer.check, self._moving.to(side_of(decoder))
        )

        def ask(*, wait: bool) -> bool:
            part = self._exchange.take(wait=wait)
            if part is not None:
                in_flight.append(part)
                reply.send(Request(with_casts(part.sql, self._plan.casts), copy=False))
            return part is not None

        def on_complete() -> None:
            self._exchange.complete(in_flight.popleft())
            ask(wait=False)

        # One part is always asked for ahead, so that the backend never waits for us between parts.
        own = Stages()
        while ask(wait=True):
            ask(wait=False)
            for batch in decode_replies(
                reply, decoder, copy=False, piece_bytes=pieces, on_complete=on_complete, stages=own
            ):
                self._exchange.put(in_flight[0], batch)
        with self._totals:
            self.rows += decoder.rows
            self._stages.add(own)
            self.received_bytes += reply.received_bytes
