"""What is kept between calls: bounded in number and bytes, forgotten in time."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

import pyarrow as pa

V = TypeVar("V")


class Shelf(Generic[V]):
    """Keeps values; the one unused for longest goes first.  Thread-safe.

    Parameters
    ----------
    count : int
        Values kept at most.
    limit_bytes : int
        And their size together.
    lifetime_s : float
        A value is forgotten when it was not used for so long.
    """

    def __init__(self, count: int, limit_bytes: int, lifetime_s: float) -> None:
        self._count = count
        self._limit_bytes = limit_bytes
        self._lifetime_s = lifetime_s
        self._bytes = 0
        self._kept: OrderedDict[Hashable, tuple[V, int, float]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, key: Hashable, value: V, size: int) -> None:
        """Keep a value of `size` bytes under a key, in place of what was there."""
        with self._lock:
            self._drop(key)
            self._kept[key] = (value, size, time.monotonic())
            self._bytes += size
            while len(self._kept) > self._count or self._bytes > self._limit_bytes:
                self._drop(next(iter(self._kept)))
            self._forget()

    def get(self, key: Hashable) -> V | None:
        """Return the value of a key, None where there is none any more."""
        with self._lock:
            self._forget()
            found = self._kept.pop(key, None)
            if found is None:
                return None
            value, size, _ = found
            self._kept[key] = (value, size, time.monotonic())
            return value

    def drop(self, key: Hashable) -> None:
        """Forget a key."""
        with self._lock:
            self._drop(key)

    def _forget(self) -> None:
        """Drop what is too old; the oldest stands first."""
        horizon = time.monotonic() - self._lifetime_s
        while self._kept and next(iter(self._kept.values()))[2] < horizon:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: Hashable) -> None:
        found = self._kept.pop(key, None)
        if found is not None:
            self._bytes -= found[1]


def packed(table: pa.Table) -> pa.Buffer:
    """Copy a result out of the server's arenas, as a stream of Arrow."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()
