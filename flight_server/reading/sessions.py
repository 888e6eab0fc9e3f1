"""What the server allows a read, and sessions opened accordingly."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from flight_server.reading.decoding import Decodings
from flight_server.reading.snapshots import SnapshotLimits
from flight_server.request import ReadRequest
from transport.catalog import Connection
from transport.opening import SessionOptions
from transport.pool import ConnectionPool
from transport.session import Session
from transport.snapshot import Snapshot

SHARE_LOCK_TIMEOUT_S = 2.0
"""A share that waits for a lock waits for DDL that waits for the share's own snapshot: that one has to end."""
IDLE_MARGIN_S = 60.0
"""PostgreSQL ends a held snapshot by itself so long after it should have ended here."""


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
    stall_timeout_s : float
        How long a client may take to accept a batch; 0 for ever.
    snapshots : SnapshotLimits
    """

    max_row_bytes: int = 128 << 20
    statement_timeout_s: float = 0.0
    lock_timeout_s: float = 30.0
    reader: str = "auto"
    max_streams: int = 4
    stall_timeout_s: float = 300.0
    snapshots: SnapshotLimits = field(default_factory=SnapshotLimits)


class Sessions:
    """Opens the sessions of reads on the connections of one pool.

    Parameters
    ----------
    pool : ConnectionPool
    limits : Limits
    decodings : Decodings
        Say what blocks they like.
    """

    def __init__(self, pool: ConnectionPool, limits: Limits, decodings: Decodings) -> None:
        self.pool = pool
        self.limits = limits
        self._decodings = decodings
        self._cores = os.cpu_count() or 1  # a file that is opened and parsed, each time

    def streams(self, request: ReadRequest) -> int:
        """Return how many sessions a read may use.

        Device batches in order are read by one: what others read early would hold the memory that it waits for.
        """
        if request.options.ordered and request.options.output != "host":
            return 1
        wanted = request.options.streams or min(self.limits.max_streams, self._cores)
        return min(wanted, self.pool.max_connections)

    def timeout_s(self, request: ReadRequest) -> float:
        """Return how long a read may take; 0 for no limit."""
        given = [value for value in (request.options.timeout_s, self.limits.statement_timeout_s) if value]
        return min(given, default=0.0)

    def options(self, request: ReadRequest) -> SessionOptions:
        """Return how a read's sessions read."""
        limits, options = self.limits, request.options
        decoding = self._decodings.choose(options)
        block_bytes = decoding.block_bytes(options.batch_target(options.streams))
        return SessionOptions(
            block_bytes=block_bytes,
            patience_s=decoding.patience_s,
            max_row_bytes=max(limits.max_row_bytes, block_bytes),
            statement_timeout_s=self.timeout_s(request) or None,
            lock_timeout_s=limits.lock_timeout_s,
            reader=limits.reader if options.reader == "auto" else options.reader,
            search_path=request.search_path,
        )

    def open(self, request: ReadRequest, connection: Connection | None = None, *, idle: bool = False) -> Session:
        """Open a session: for a read on a connection taken for it, else for questions.

        Parameters
        ----------
        request : ReadRequest
        connection : Connection, optional
        idle : bool
            It may become idle in its transaction, for as long as snapshots are held.
        """
        options = self.options(request)
        if idle:
            options = replace(options, idle_timeout_s=self._idle_timeout_s)
            return Session(self.pool, options, connection=connection)
        return Session(self.pool, options, connection=connection or self.pool.take_for_question())

    def open_share(self, request: ReadRequest, connection: Connection, snapshot: Snapshot) -> Session:
        """Open a session that reads page ranges under a snapshot that is held elsewhere."""
        options = replace(self.options(request), lock_timeout_s=SHARE_LOCK_TIMEOUT_S, parallel_query=False)
        return Session(self.pool, options, connection=connection, snapshot=snapshot)

    def open_holder(self, snapshot: Snapshot) -> Session | None:
        """Open a session that does nothing but hold a snapshot, if a connection is free."""
        free = self.pool.take_free(1)
        options = SessionOptions(idle_timeout_s=self._idle_timeout_s)
        return Session(self.pool, options, connection=free[0], snapshot=snapshot) if free else None

    def take(self, request: ReadRequest, stack: ExitStack) -> list[Connection]:
        """Take the connections that a read asks for by number; what is left of them goes back with `stack`."""
        spare = self.pool.take(max(1, min(request.options.streams, self.pool.max_connections)))
        stack.callback(self.give_back, spare)
        return spare

    def give_back(self, connections: list[Connection]) -> None:
        """Return connections that were taken and are not used."""
        while connections:
            self.pool.give_back(connections.pop())

    @property
    def _idle_timeout_s(self) -> float:
        return self.limits.snapshots.max_s + IDLE_MARGIN_S
