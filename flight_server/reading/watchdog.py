"""Ends reads whose client has stopped reading: nothing else does, and they hold a snapshot and locks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from flight_server.observe import metrics
from kernels.errors import DeadlineError

log = structlog.get_logger("pgflight.stream")

CHECKS_PER_LIMIT = 10
LONGEST_PAUSE_S = 0.5


class Watch:
    """One read under watch.

    Attributes
    ----------
    hang_up : callable or None
        Closes the read's connections to PostgreSQL; called on the watchdog's thread, while the read's own thread
        is held up in handing out a batch.
    """

    def __init__(self, limit_s: float) -> None:
        self.hang_up: Callable[[], None] | None = None
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._since: float | None = None
        self._stalled = False

    @contextmanager
    def handing_out(self) -> Iterator[None]:
        """Measure how long the client takes to accept a batch.

        Raises
        ------
        DeadlineError
            So long that the read has been ended.
        """
        with self._lock:
            self._since = time.monotonic()
        try:
            yield
        finally:
            with self._lock:  # waits for a hang-up under way: the connections may be closed after it only
                self._since = None
        if self._stalled:
            raise DeadlineError(f"the client did not read for {self._limit_s:g} s (stall_timeout_s)")

    def end_if_stalled(self) -> None:
        """Hang up if the client has not read for too long."""
        with self._lock:
            if self._since is None or self._stalled or time.monotonic() - self._since < self._limit_s:
                return
            self._stalled = True
            metrics.STALLED.inc()
            log.info("client stalled", seconds=self._limit_s)
            if self.hang_up is not None:
                self.hang_up()

    def end(self) -> None:
        """Let go of the read: else it and its watch keep each other, and its block, until the collector runs."""
        with self._lock:
            self.hang_up = None


class Watchdog:
    """Watches reads; its thread runs while there are any.

    Parameters
    ----------
    limit_s : float
        How long a client may take to accept a batch; 0 for ever.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._watches: set[Watch] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @contextmanager
    def watch(self) -> Iterator[Watch]:
        """Watch a read."""
        watch = Watch(self._limit_s)
        if self._limit_s:
            self._add(watch)
        try:
            yield watch
        finally:
            with self._changed:
                self._watches.discard(watch)
            watch.end()

    def _add(self, watch: Watch) -> None:
        with self._changed:
            self._watches.add(watch)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        pause_s = min(LONGEST_PAUSE_S, self._limit_s / CHECKS_PER_LIMIT)
        while True:
            with self._changed:
                if not self._watches:
                    self._thread = None
                    return
                watches = list(self._watches)
            for watch in watches:
                watch.end_if_stalled()
            time.sleep(pause_s)
