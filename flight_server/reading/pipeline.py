"""The composition: a request becomes a preview, or a stream of batches with one line in the log."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

import pyarrow as pa

from flight_server.reading import statement
from flight_server.reading.decoding import Decodings
from flight_server.reading.execution import Execution, Read
from flight_server.reading.planning import Preview, estimates, prepare, shares_of
from flight_server.reading.sessions import Sessions
from flight_server.reading.snapshots import Share, SnapshotKeeper
from flight_server.reading.spooling import SpooledReads
from flight_server.reading.tally import Tally
from flight_server.reading.transports import Transports
from flight_server.reading.watchdog import Watchdog
from flight_server.request import ReadRequest
from kernels.errors import PostgresError
from kernels.plan import plan
from transport.catalog import Table
from transport.session import Session
from transport.spool import Spool

QUERY_CANCELED = "57014"


class Pipeline:
    """Reads from one PostgreSQL login with one twin of the kernels.  Thread-safe.

    Parameters
    ----------
    sessions : Sessions
    decodings : Decodings
    spool : Spool, optional
    transports : Transports, optional
    """

    def __init__(
        self,
        sessions: Sessions,
        decodings: Decodings,
        spool: Spool | None = None,
        transports: Transports | None = None,
    ) -> None:
        limits = sessions.limits
        self._sessions = sessions
        self._decodings = decodings
        self._watchdog = Watchdog(limits.stall_timeout_s)
        self.keeper = SnapshotKeeper(limits.snapshots, sessions.open_holder)
        self._transports = transports or Transports(spool)
        self.spooled = SpooledReads(spool, decodings, self._transports, limits.max_row_bytes)
        self._execution = Execution(sessions, decodings, self.keeper, self.spooled, self._transports)

    @property
    def sessions(self) -> Sessions:
        """Where its reads take place."""
        return self._sessions

    def preview(self, request: ReadRequest, identity: str = "", *, hold: bool = False) -> Preview:
        """Describe a read: schema and estimates; no row of it is read.

        Parameters
        ----------
        request : ReadRequest
        identity : str
            Who asks.
        hold : bool
            Hold a snapshot for as many endpoints as are wanted, if the read can be cut.
        """
        chosen = self._decodings.choose(request.options).facts
        kept = self.spooled.preview(request, identity)
        if kept is not None:
            return replace(kept, facts=kept.facts | chosen)
        endpoints = request.options.endpoints if hold else 1
        with ExitStack() as stack:
            session = stack.enter_context(self._sessions.open(request, idle=endpoints > 1))
            prepared = prepare(session, request, max(endpoints, self._sessions.streams(request)))
            rows, size = estimates(session, request)
            shares = shares_of(request, prepared) if endpoints > 1 else ()
            held = self.keeper.hold(session, stack) if shares else None
        division = prepared.division
        facts: dict[str, Any] = {"streams": division.streams, "parts": max(1, len(division.parts))}
        if held is not None:
            facts = {"streams": max(1, request.options.streams), "parts": len(shares)}
            facts |= {"endpoints": len(shares), "snapshot": held.snapshot.name}
        return Preview(prepared.plan.schema, rows, size, facts | {"why": division.why} | chosen, held, shares)

    def tables(self, pattern: str) -> list[tuple[Table, pa.Schema]]:
        """Return the relations whose ``schema.name`` is LIKE `pattern`, with their schemas."""
        with self._sessions.open(ReadRequest(sql="")) as session:
            return [(table, plan(table.columns).schema) for table in session.tables(pattern)]

    def read(
        self,
        request: ReadRequest,
        check: Callable[[], None],
        expected_digest: str | None = None,
        share: Share | None = None,
        identity: str = "",
        lease: str = "",
        within: Session | None = None,
        told: dict[str, Any] | None = None,
    ) -> tuple[pa.Schema, Generator[Any, None, None]]:
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
        identity : str
            Who asks: what is kept of a read is its own.
        lease : str
            By which lease connection the client takes device batches.
        within : Session, optional
            In whose transaction to read; the caller's, before and after.
        told : dict, optional
            Receives what the read amounted to, when it is over.

        Returns
        -------
        (schema, batches)
            The iterator owns connection and memory: exhausting or closing it gives both back.

        Raises
        ------
        PgflightError
            Before the first batch; later ones are raised by the iterator.
        """
        steps = self._steps(request, check, expected_digest, share, identity, lease, within, told)
        # The first step opens the session and knows the schema: a generator that has been started is sure to
        # run its clean-up, also when no batch is ever asked for.
        schema = next(steps)
        return schema, steps

    def close(self) -> None:
        """End the snapshots that are held, and let go of the spool."""
        self.keeper.close()
        self._transports.close()
        self.spooled.close()

    def close_connections(self) -> None:
        """Close the connections to PostgreSQL; those of reads under way when they end."""
        self._sessions.pool.close()

    def _steps(
        self,
        request: ReadRequest,
        check: Callable[[], None],
        digest: str | None,
        share: Share | None,
        identity: str,
        lease: str,
        within: Session | None,
        told: dict[str, Any] | None,
    ) -> Generator[Any, None, None]:
        """Yield the schema, then the batches; log one line when it is over."""
        tally = Tally(statement.select(request), self._sessions.timeout_s(request))

        def still_wanted() -> None:
            check()
            tally.require_time()

        read = Read(request, still_wanted, tally, identity, digest, lease)
        try:
            with self._watchdog.watch() as watch:
                tally.watch = watch
                if within is not None:
                    steps = self._execution.within(read, within)
                elif share is not None:
                    steps = self._execution.share(read, share)
                elif request.options.max_age_s:
                    steps = self._execution.kept(read)
                else:
                    steps = self._execution.fresh(read)
                with closing(steps):
                    for step in steps:
                        with watch.handing_out():
                            yield step
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
            if told is not None:
                told |= tally.summary()
