"""Memory with an inaccessible page behind it and marked bytes before it: an access outside is noticed."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np

from kernels.layout import WIRE_PAD_BYTES
from kernels.typing import Uint8s

PAGE = mmap.PAGESIZE
PROT_NONE = 0
MARK_BYTES = 256
MARK = 0xC3
STALE = 0xA5
"""What a fresh region holds: memory is used again and again, and must not show through."""


class Slab:
    """Bytes whose end is the end of the accessible memory: touching the next byte kills the process.

    Parameters
    ----------
    size_bytes : int
    """

    def __init__(self, size_bytes: int) -> None:
        pages = -(-(size_bytes + MARK_BYTES) // PAGE)
        self._map = mmap.mmap(-1, (pages + 1) * PAGE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mprotect(ctypes.c_void_p(address + pages * PAGE), ctypes.c_size_t(PAGE), PROT_NONE) != 0:
            raise OSError(ctypes.get_errno(), "mprotect")
        self.bytes: Uint8s = np.frombuffer(self._map, np.uint8, pages * PAGE)

    def tail(self, size: int) -> Uint8s:
        """Return the last `size` bytes, with a mark before them."""
        start = self.bytes.size - size
        assert start >= MARK_BYTES, "the slab is too small"
        self.bytes[start - MARK_BYTES : start] = MARK
        self.bytes[start:] = STALE
        return self.bytes[start:]

    def is_marked(self, size: int) -> bool:
        """Tell whether the mark before the last `size` bytes is whole."""
        start = self.bytes.size - size
        return bool((self.bytes[start - MARK_BYTES : start] == MARK).all())


class GuardedRegion:
    """A region on loan from `GuardedPool`."""

    def __init__(self, pool: GuardedPool, slab: Slab, size: int) -> None:
        self._pool = pool
        self._slab = slab
        self._size = size
        self.array = slab.tail(size)

    def __del__(self) -> None:
        self._pool.take_back(self._slab, self._size)


class GuardedPool:
    """Hands out guarded regions, and remembers whether anything was written before one.

    Sizes are rounded up to 64 bytes only, as the kernels are promised: a region of an exact multiple ends where
    the accessible memory ends.
    """

    def __init__(self, slab_bytes: int) -> None:
        self._slab_bytes = slab_bytes
        self._free: list[Slab] = []
        self.damaged = 0

    def allocate(self, size_bytes: int) -> GuardedRegion:
        """Return a region of at least `size_bytes`."""
        size = -(-size_bytes // 64) * 64
        slab = self._free.pop() if self._free else Slab(self._slab_bytes)
        return GuardedRegion(self, slab, size)

    def take_back(self, slab: Slab, size: int) -> None:
        """Look at the mark and keep the slab."""
        self.damaged += not slab.is_marked(size)
        self._free.append(slab)


def exact_block(slab: Slab, wire: bytes, pad: bytes) -> Uint8s:
    """Place `wire` so that only the pad lies between its last byte and the inaccessible page."""
    assert len(pad) == WIRE_PAD_BYTES
    block = slab.bytes[slab.bytes.size - len(wire) - WIRE_PAD_BYTES :]
    block[: len(wire)] = np.frombuffer(wire, np.uint8)
    block[len(wire) :] = np.frombuffer(pad, np.uint8)
    return block
