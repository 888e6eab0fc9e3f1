"""Several streams of one read -> one: work is taken part by part, batches come by arrival or in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from flight_server.reading.split import Part
from kernels.errors import CancelledError

POLL_S = 0.1
BATCHES_PER_STREAM = 4
"""Batches that may wait for the consumer, per stream."""


@dataclass(slots=True)
class _Shelf:
    """The batches of one part that were not handed out yet."""

    batches: deque[pa.RecordBatch] = field(default_factory=deque)
    complete: bool = False


class Exchange:
    """Where the streams of a read take parts and leave batches, and one consumer collects them.

    Thread-safe.

    Parameters
    ----------
    parts : sequence of Part
    streams : int
    ordered : bool
        Hand batches out in the order of the parts.  Streams then run ahead by one part each at most: what they
        read early is kept.
    """

    def __init__(self, parts: Sequence[Part], streams: int, *, ordered: bool) -> None:
        self._todo = deque(parts)
        self._shelves = [_Shelf() for _ in parts]
        self._ready: deque[int] = deque()
        self._head = 0
        self._streams = streams
        self._ordered = ordered
        self._waiting_batches = 0
        self._completed = 0
        self._failure: BaseException | None = None
        self._stopped = False
        # One lock; who waits is woken for what it waits for: all streams woken for each batch would be a herd.
        lock = threading.Lock()
        self._work = threading.Condition(lock)
        self._room = threading.Condition(lock)
        self._ready_batches = threading.Condition(lock)
        self._lock = lock

    def take(self, *, wait: bool) -> Part | None:
        """Return a part to read next; None when all are read (or, without `wait`, when there is none right now).

        A stream that waits here takes over what another one puts back.
        """
        with self._lock:
            while not self._stopped and self._completed < len(self._shelves):
                if self._todo and (not self._ordered or self._todo[0].index < self._head + self._streams + 1):
                    return self._todo.popleft()
                if not wait:
                    return None
                self._work.wait(POLL_S)
            if self._completed < len(self._shelves):
                raise CancelledError("the read has ended")
            return None

    def put_back(self, parts: Sequence[Part]) -> None:
        """Return parts of which no row was read."""
        with self._lock:
            self._todo.extendleft(reversed(parts))
            self._work.notify_all()

    def put(self, part: Part, batch: pa.RecordBatch) -> None:
        """Leave a batch; waits while many wait already."""
        with self._lock:
            limit = BATCHES_PER_STREAM * self._streams
            while not self._stopped and not self._ordered and self._waiting_batches >= limit:
                self._room.wait(POLL_S)
            if self._stopped:
                raise CancelledError("the read has ended")
            self._shelves[part.index].batches.append(batch)
            self._ready.append(part.index)
            self._waiting_batches += 1
            self._ready_batches.notify()

    def complete(self, part: Part) -> None:
        """Say that all rows of a part were left."""
        with self._lock:
            self._shelves[part.index].complete = True
            self._completed += 1
            self._ready_batches.notify()
            if self._completed == len(self._shelves):
                self._work.notify_all()

    def fail(self, failure: BaseException) -> None:
        """End the read with an error; the first one counts."""
        with self._lock:
            self._failure = self._failure or failure
            self._stop()

    def stop(self) -> None:
        """End the read: whoever waits here is told."""
        with self._lock:
            self._stop()

    def require_running(self) -> None:
        """Raise if the read has ended; the streams' callback while they wait for PostgreSQL."""
        if self._stopped:
            raise CancelledError("the read has ended")

    def batches(self, check: Callable[[], None]) -> Iterator[pa.RecordBatch]:
        """Yield all batches; `check` is called on this thread while waiting."""
        while True:
            with self._lock:
                batch = self._next()
                while batch is None:
                    if self._failure is not None:
                        raise self._failure
                    if self._completed == len(self._shelves):
                        return
                    self._ready_batches.wait(POLL_S)
                    check()
                    batch = self._next()
            yield batch

    def _stop(self) -> None:
        """Wake everybody up, for the end; the lock is held."""
        self._stopped = True
        for waiting in (self._work, self._room, self._ready_batches):
            waiting.notify_all()

    def _next(self) -> pa.RecordBatch | None:
        if self._ordered:
            while self._head < len(self._shelves):
                shelf = self._shelves[self._head]
                if shelf.batches:
                    return self._hand_out(shelf)
                if not shelf.complete:
                    return None
                self._head += 1
                self._work.notify_all()
            return None
        return self._hand_out(self._shelves[self._ready.popleft()]) if self._ready else None

    def _hand_out(self, shelf: _Shelf) -> pa.RecordBatch:
        self._waiting_batches -= 1
        self._room.notify()
        return shelf.batches.popleft()
