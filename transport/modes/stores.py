"""Where a reply is put together before it is decoded: a list of chunks, a growing buffer, one by offset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from kernels.errors import OverloadedError
from kernels.typing import Allocate, Region
from transport.modes.counters import Counters
from transport.reply import PAD_BYTES

CHUNK_BYTES = 1 << 20
"""What is received at once, at most."""


class Store(Protocol):
    """Takes a reply chunk by chunk and gives it out as one region."""

    size: int
    """Bytes taken so far."""

    def room(self) -> memoryview:
        """Return where the next bytes are to be received.

        Raises
        ------
        OverloadedError
            The reply exceeds what may be collected.
        """

    def took(self, count: int) -> None:
        """Say that so many bytes were received there."""

    def finish(self) -> Region:
        """Return all bytes, with PAD_BYTES readable behind them; the store is used up."""


MakeStore = Callable[[], Store]


class Limited:
    """The size so far, and how far it may go.

    Parameters
    ----------
    allocate : Allocate
    limit_bytes : int
    counters : Counters
    """

    name = ""

    def __init__(self, allocate: Allocate, limit_bytes: int, counters: Counters) -> None:
        self._allocate = counters.counting(allocate)
        self._limit_bytes = limit_bytes
        self._counters = counters
        self.size = 0

    def _require_room(self) -> None:
        if self.size >= self._limit_bytes:
            raise OverloadedError(
                f"transport={self.name} collects a whole result and may hold {self._limit_bytes >> 20} MiB of one "
                "stream (setting collect_mib): read with transport=pinned, which holds one block at a time"
            )


class ChunkList(Limited):
    """``single``: chunks in a list, joined in the end by one copy."""

    name = "single"

    def __init__(self, allocate: Allocate, limit_bytes: int, counters: Counters) -> None:
        super().__init__(allocate, limit_bytes, counters)
        self._chunks: list[Region] = []
        self._used = CHUNK_BYTES

    def room(self) -> memoryview:
        """Return the rest of the last chunk, or a new one."""
        if self._used == CHUNK_BYTES:
            self._require_room()
            self._chunks.append(self._allocate(CHUNK_BYTES))
            self._used = 0
        return memoryview(self._chunks[-1].array.data)[self._used : CHUNK_BYTES]

    def took(self, count: int) -> None:
        """Count the bytes in."""
        self._used += count
        self.size += count

    def finish(self) -> Region:
        """Join the chunks."""
        whole = self._allocate(self.size + PAD_BYTES)
        at = 0
        for chunk in self._chunks:
            part = min(CHUNK_BYTES, self.size - at)
            whole.array[at : at + part] = chunk.array[:part]
            at += part
        self._counters.copied(self.size)
        self._chunks.clear()
        return whole


class GrowingBuffer(Limited):
    """``buffered``: one buffer, received into at its end; a full one is copied into one of twice its size."""

    name = "buffered"

    def __init__(self, allocate: Allocate, limit_bytes: int, counters: Counters) -> None:
        super().__init__(allocate, limit_bytes, counters)
        self._capacity = min(CHUNK_BYTES, limit_bytes)
        self._region = self._allocate(self._capacity + PAD_BYTES)

    def room(self) -> memoryview:
        """Return the free end of the buffer."""
        if self.size == self._capacity:
            self._require_room()
            self._capacity = min(2 * self._capacity, self._limit_bytes)
            larger = self._allocate(self._capacity + PAD_BYTES)
            larger.array[: self.size] = self._region.array[: self.size]
            self._counters.copied(self.size)
            self._region = larger
        return memoryview(self._region.array.data)[self.size : min(self._capacity, self.size + CHUNK_BYTES)]

    def took(self, count: int) -> None:
        """Count the bytes in."""
        self.size += count

    def finish(self) -> Region:
        """Return the buffer as it is."""
        return self._region


class OffsetBuffer(Limited):
    """``chunked``: every chunk is copied to its offset in one buffer as it arrives.

    The buffer has the size of the limit: pages that are not written to are not taken.
    """

    name = "chunked"

    def __init__(self, allocate: Allocate, limit_bytes: int, counters: Counters) -> None:
        super().__init__(allocate, limit_bytes, counters)
        self._chunk = np.empty(min(CHUNK_BYTES, limit_bytes), np.uint8)
        self._region = self._allocate(limit_bytes + PAD_BYTES)

    def room(self) -> memoryview:
        """Return the chunk."""
        self._require_room()
        return memoryview(self._chunk.data)[: self._limit_bytes - self.size]

    def took(self, count: int) -> None:
        """Copy the chunk to its offset."""
        self._region.array[self.size : self.size + count] = self._chunk[:count]
        self._counters.copied(count)
        self.size += count

    def finish(self) -> Region:
        """Return the buffer as it is."""
        return self._region


MakeNamedStore = Callable[[Allocate, int, Counters], Store]

STORES: dict[str, MakeNamedStore] = {store.name: store for store in (ChunkList, GrowingBuffer, OffsetBuffer)}
