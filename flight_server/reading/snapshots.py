"""Snapshots that outlive the call that took them, so that several readers can share one: leases with an end.

A held snapshot costs the database: it keeps VACUUM from removing what died since.  So a lease ends when nobody
has read under it for `lease_s`, after `max_s` in any case, when the client cancels it, or when DDL waits for its
locks.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import structlog

from kernels.errors import OverloadedError, SnapshotEndedError
from transport.partition import PageRange
from transport.session import Session
from transport.snapshot import Snapshot

log = structlog.get_logger("pgflight.snapshot")


@dataclass(frozen=True, slots=True)
class SnapshotLimits:
    """How long snapshots are held, and how many.

    Parameters
    ----------
    lease_s : float
        A lease ends when nobody has read under it for so long.
    max_s : float
        And after so long in any case.
    count : int
        Snapshots held at once; each takes a connection.
    """

    lease_s: float = 120.0
    max_s: float = 3600.0
    count: int = 4


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to read a snapshot, on any replica.

    Parameters
    ----------
    id : str
    snapshot : Snapshot
        As the server that planned the read exported it.
    """

    id: str
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class Share:
    """One endpoint's part of a read.

    Parameters
    ----------
    lease : Lease
    ranges : tuple of PageRange
    """

    lease: Lease
    ranges: tuple[PageRange, ...]


@dataclass(slots=True)
class Held:
    """A snapshot held here, in an open transaction.  Times are of the monotonic clock."""

    lease: Lease
    snapshot: Snapshot
    expires_at: float
    ends_at: float
    resources: ExitStack = field(default_factory=ExitStack)
    readers: int = 0
    cancelled: bool = False

    @property
    def remaining_s(self) -> float:
        """Seconds for which it is sure to be held, if nobody cancels it."""
        return max(0.0, self.expires_at - time.monotonic())

    def require_wanted(self) -> None:
        """Raise if the client has cancelled the whole read."""
        if self.cancelled:
            raise SnapshotEndedError("the read was cancelled")


class SnapshotKeeper:
    """Holds snapshots and ends them in time.  Thread-safe.

    Parameters
    ----------
    limits : SnapshotLimits
    open_session : callable
        Opens a session on a connection that is free now, under a snapshot of another server; None without one.
    """

    def __init__(self, limits: SnapshotLimits, open_session: Callable[[Snapshot], Session | None]) -> None:
        self.limits = limits
        self._open_session = open_session
        self._held: dict[str, Held] = {}
        self._changed = threading.Condition()
        self._joining = threading.Lock()
        self._reaper: threading.Thread | None = None

    @property
    def count(self) -> int:
        """Snapshots held now."""
        return len(self._held)

    @property
    def oldest_s(self) -> float:
        """Age of the oldest one in seconds; 0 without any."""
        with self._changed:
            begun = [held.ends_at - self.limits.max_s for held in self._held.values()]
        return time.monotonic() - min(begun) if begun else 0.0

    def hold(self, session: Session, resources: ExitStack) -> Held:
        """Keep a session's transaction open; `resources` leaves the session and is taken over on success.

        Raises
        ------
        OverloadedError
            As many snapshots as allowed are held already.
        """
        snapshot = session.export_snapshot()
        held = self._register(Lease(secrets.token_hex(8), snapshot), snapshot, resources)
        if held is None:
            raise OverloadedError(f"{self.limits.count} snapshots are held for other readers: try again later")
        return held

    @contextmanager
    def reading(self, lease: Lease) -> Iterator[Held]:
        """Read under a lease: it does not expire meanwhile, and lives on for `lease_s` afterwards.

        A lease of another replica is joined: its snapshot is then held here too, and outlives that replica.
        """
        held = self._held.get(lease.id) or self._join(lease)
        with self._changed:
            held.readers += 1
        try:
            yield held
        finally:
            with self._changed:
                held.readers -= 1
                self._extend(held)

    def renew(self, lease: Lease) -> Held:
        """Let a lease live for another `lease_s` from now.

        Raises
        ------
        SnapshotEndedError
            It has ended, or only another replica holds it.
        """
        with self.reading(lease) as held:
            if lease.id not in self._held:
                raise SnapshotEndedError("or another replica holds it: renew there")
            return held

    def end(self, lease: Lease, reason: str) -> bool:
        """End a lease; return whether it was held here.  Reads that have begun under it go on."""
        with self._changed:
            held = self._held.pop(lease.id, None)
            self._changed.notify_all()
        if held is None:
            return False
        held.resources.close()
        log.info("snapshot ended", lease=lease.id, reason=reason)
        return True

    def cancel(self, lease: Lease) -> bool:
        """End a lease and the reads under it; return whether it was held here."""
        held = self._held.get(lease.id)
        if held is not None:
            held.cancelled = True
        return self.end(lease, "cancelled")

    def close(self) -> None:
        """End all leases."""
        for held in list(self._held.values()):
            self.end(held.lease, "the server is shutting down")

    def _join(self, lease: Lease) -> Held:
        with self._joining:
            held = self._held.get(lease.id)
            if held is not None:
                return held
            with ExitStack() as resources:
                session = self._open_session(lease.snapshot) if self.count < self.limits.count else None
                if session is not None:
                    resources.enter_context(session)
                    held = self._register(lease, session.export_snapshot(), resources)
        # Without room the reader imports what the other replica holds, and depends on it.
        return held or Held(lease, lease.snapshot, time.monotonic(), time.monotonic())

    def _register(self, lease: Lease, snapshot: Snapshot, resources: ExitStack) -> Held | None:
        now = time.monotonic()
        with self._changed:
            if len(self._held) >= self.limits.count:
                return None
            held = Held(lease, snapshot, now + self.limits.lease_s, now + self.limits.max_s, resources.pop_all())
            self._extend(held)
            self._held[lease.id] = held
            if self._reaper is None:
                self._reaper = threading.Thread(target=self._reap, name="snapshots", daemon=True)
                self._reaper.start()
        log.info("snapshot held", lease=lease.id, snapshot=snapshot.name)
        return held

    def _extend(self, held: Held) -> None:
        held.expires_at = min(time.monotonic() + self.limits.lease_s, held.ends_at)
        self._changed.notify_all()

    def _reap(self) -> None:
        """End what has expired, until nothing is held (runs in a thread of its own)."""
        while True:
            with self._changed:
                if not self._held:
                    self._reaper = None
                    return
                now = time.monotonic()
                due = [(held.ends_at if held.readers else held.expires_at, held) for held in self._held.values()]
                over = [held for at, held in due if at <= now]
                if not over:
                    self._changed.wait(min(at for at, _ in due) - now)
            for held in over:
                self.end(held.lease, "nobody read" if held.expires_at < held.ends_at else "held for too long")
