"""What destructors give back: they may run anywhere, also while this thread holds the owner's lock."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Returns(Generic[T]):
    """A tray that destructors put things on and their owner clears.

    A destructor must not wait for a lock, and must not change what its own thread is in the middle of changing.
    So it lays the thing down (which cannot be interrupted), and clears the tray only if nobody holds the lock.

    Parameters
    ----------
    changed : Condition
        The owner's, over a lock that is not re-entrant; notified when something has come back.
    take : callable
        Takes one thing back; called with the lock held.
    """

    def __init__(self, changed: threading.Condition, take: Callable[[T], None]) -> None:
        self._changed = changed
        self._take = take
        self._tray: deque[T] = deque()

    def put(self, thing: T) -> None:
        """Give something back; never waits."""
        self._tray.append(thing)
        if self._changed.acquire(blocking=False):
            try:
                self.clear()
                self._changed.notify_all()
            finally:
                self._changed.release()

    def clear(self) -> None:
        """Take back all that lies here; the caller holds the lock."""
        while self._tray:
            self._take(self._tray.popleft())
