"""Fixed blocks from a pool with a budget: what bounds the server's memory."""

from __future__ import annotations

import mmap
import threading
from collections import defaultdict

import numpy as np

from kernels.errors import OverloadedError
from kernels.typing import Uint8s

ALIGN_BYTES = 64
GRAIN_BYTES = 64 << 10
"""Sizes are rounded up to this, so that batches of one stream share blocks."""


class Region:
    """Bytes on loan from a pool; they go back when the object is no longer referenced.

    Arrow buffers hold a reference to the region they lie in, so a batch that gRPC has not sent yet keeps it.
    """

    __slots__ = ("__weakref__", "_base", "_pool", "array")

    def __init__(self, pool: RegionPool, base: Uint8s) -> None:
        self._pool = pool
        self._base = base
        skip = -base.ctypes.data % ALIGN_BYTES
        self.array = base[skip : skip + base.size - ALIGN_BYTES]

    def __del__(self) -> None:
        self._pool.take_back(self._base)


class RegionPool:
    """Hands out regions within a budget, and waits for one to come back where it is spent.

    Thread-safe.

    Parameters
    ----------
    budget_bytes : int
        Bytes on loan and kept for reuse, together.
    wait_s : float
        How long `allocate` waits before it refuses.
    """

    def __init__(self, budget_bytes: int, *, wait_s: float = 30.0) -> None:
        self.budget_bytes = budget_bytes
        self._wait_s = wait_s
        self._free: dict[int, list[Uint8s]] = defaultdict(list)
        self._lent_bytes = 0
        self._kept_bytes = 0
        # Re-entrant: a garbage collection inside the lock may run Region.__del__ on the same thread.
        self._changed = threading.Condition(threading.RLock())

    def allocate(self, size_bytes: int) -> Region:
        """Return a region of at least `size_bytes`; its contents are arbitrary.

        Raises
        ------
        OverloadedError
            The budget is smaller, or stayed spent for the whole waiting time.
        """
        size = -(-size_bytes // GRAIN_BYTES) * GRAIN_BYTES + ALIGN_BYTES
        if size > self.budget_bytes:
            raise OverloadedError(
                f"a block of {size_bytes} bytes exceeds the memory budget of {self.budget_bytes} bytes"
            )
        with self._changed:
            if not self._changed.wait_for(lambda: self._lent_bytes + size <= self.budget_bytes, self._wait_s):
                raise OverloadedError(
                    f"the memory budget of {self.budget_bytes} bytes stayed in use for {self._wait_s:g} s"
                )
            self._lent_bytes += size
            if self._free[size]:
                self._kept_bytes -= size
                return Region(self, self._free[size].pop())
            self._drop_kept(self._lent_bytes + self._kept_bytes - self.budget_bytes)
        return Region(self, _pages(size))

    def take_back(self, base: Uint8s) -> None:
        """Keep a region's memory for the next one (called by the region itself)."""
        with self._changed:
            self._lent_bytes -= base.size
            self._kept_bytes += base.size
            self._free[base.size].append(base)
            self._changed.notify_all()

    def trim(self) -> None:
        """Return all memory that is not on loan to the operating system."""
        with self._changed:
            self._drop_kept(self._kept_bytes)

    @property
    def lent_bytes(self) -> int:
        """Bytes on loan now."""
        return self._lent_bytes

    @property
    def kept_bytes(self) -> int:
        """Bytes kept for reuse now."""
        return self._kept_bytes

    def _drop_kept(self, excess: int) -> None:
        for bases in self._free.values():
            while excess > 0 and bases:
                size = bases.pop().size
                self._kept_bytes -= size
                excess -= size


def _pages(size: int) -> Uint8s:
    """Return memory that goes back to the operating system when it is dropped.

    malloc would keep what is freed between blocks that are still in use: a server that reads rows of all sizes
    took twice its budget.
    """
    return np.frombuffer(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)
