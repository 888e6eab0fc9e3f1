"""Page-locked blocks: PostgreSQL's bytes are received into them and copied to the GPU from them at full speed."""

from __future__ import annotations

import ctypes
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from kernels.errors import ConfigError, OverloadedError
from kernels.typing import Uint8s
from transport.device.cuda import Cuda
from transport.device.returns import Returns

MIB = 1 << 20
PAGE_BYTES = 4096
"""Room behind every block for the bytes that kernels may load beyond its end; a page, for blocks end on one."""
LOOK_S = 0.1
"""How often a waiting caller looks whether it is still wanted."""
COPY_LOOK_S = 0.0005
"""How often, while blocks are only waiting for their copies to end: a copy of 16 MiB takes 0.3 ms."""


@dataclass(eq=False, slots=True)
class Block:
    """One page-locked allocation."""

    address: int
    size: int
    events: dict[int, int] = field(default_factory=dict)
    """By device, the event behind the last copy out of this block."""


class PinnedRegion:
    """A block on loan: it goes back when the object is no longer referenced, and is lent again when the copies out
    of it that were announced with `read_by` are over.

    Parameters
    ----------
    pool : PinnedPool
    block : Block
    """

    __slots__ = ("__weakref__", "_block", "_pool", "array")

    def __init__(self, pool: PinnedPool, block: Block) -> None:
        self._pool = pool
        self._block = block
        memory = (ctypes.c_uint8 * (block.size + PAGE_BYTES)).from_address(block.address)
        self.array: Uint8s = np.ctypeslib.as_array(memory)
        """The bytes; page-aligned, a page longer than the block."""

    @property
    def address(self) -> int:
        """Where the bytes begin."""
        return self._block.address

    def read_by(self, stream: int, ordinal: int) -> None:
        """Say that a stream of a device has queued a copy out of this block."""
        self._pool.mark(self._block, stream, ordinal)

    def __del__(self) -> None:
        self._pool.take_back(self._block)


class PinnedPool:
    """Page-locked blocks within a budget; waits where it is spent.  Thread-safe.

    Blocks are powers of two; one that is asked for more than `block_mib` is larger, and takes the room of others.

    Parameters
    ----------
    cuda : Cuda
    block_mib : int
        Size of a block, a power of two.
    blocks : int
        How many of them the budget holds.
    wait_s : float
        How long `allocate` waits before it refuses.
    """

    def __init__(self, cuda: Cuda, *, block_mib: int, blocks: int, wait_s: float = 30.0) -> None:
        if block_mib < 1 or block_mib & (block_mib - 1):
            raise ConfigError(f"pinned blocks: {block_mib} MiB is not a power of two")
        if blocks < 1:
            raise ConfigError(f"pinned blocks: at least one is needed, not {blocks}")
        self.block_bytes = block_mib * MIB
        self.budget_bytes = blocks * self.block_bytes
        self._cuda = cuda
        self._wait_s = wait_s
        self._held_bytes = 0
        self._lent_bytes = 0
        self._closed = False
        self._free: dict[int, list[Block]] = defaultdict(list)
        self._copying: list[Block] = []
        self._changed = threading.Condition(threading.Lock())
        self._returns: Returns[Block] = Returns(self._changed, self._take_back)

    def allocate(self, size_bytes: int, /, check: Callable[[], None] | None = None) -> PinnedRegion:
        """Return a block of at least `size_bytes`, whose contents are arbitrary.

        Parameters
        ----------
        size_bytes : int
            The page behind the block counts: a block and its pad fit into one.
        check : callable, optional
            Called while waiting, at least every 0.1 s; raises to give up.

        Raises
        ------
        OverloadedError
            The budget is smaller, or stayed spent for the whole waiting time; or no memory can be page-locked.
        """
        size = max(self.block_bytes, 1 << (max(1, size_bytes - PAGE_BYTES) - 1).bit_length())
        if size > self.budget_bytes:
            raise OverloadedError(f"{size} bytes exceed the pinned memory of {self.budget_bytes} bytes")
        deadline = time.monotonic() + self._wait_s
        while True:
            with self._changed:
                block = self._find(size)
                if block is not None:
                    self._lent_bytes += block.size
                    return PinnedRegion(self, block)
                self._changed.wait(COPY_LOOK_S if self._copying else LOOK_S)
            if check is not None:
                check()
            if time.monotonic() >= deadline:
                raise OverloadedError(
                    f"the pinned memory of {self.budget_bytes} bytes stayed in use for {self._wait_s:g} s"
                )

    def mark(self, block: Block, stream: int, ordinal: int) -> None:
        """Set the block's event behind what `stream` has queued (called through the region)."""
        event = block.events.get(ordinal)
        if event is None:
            event = block.events[ordinal] = self._cuda.event(ordinal)
        elif not self._cuda.done(event):
            self._cuda.wait_for(event, stream)  # so that the event stands for the copies of both streams
        self._cuda.record(event, stream)

    def take_back(self, block: Block) -> None:
        """Take a block back (called by the region itself)."""
        self._returns.put(block)

    @property
    def lent_bytes(self) -> int:
        """Bytes on loan now, pads not counted."""
        return self._lent_bytes

    @property
    def held_bytes(self) -> int:
        """Bytes that are page-locked now, on loan or not, pads not counted."""
        return self._held_bytes

    def close(self) -> None:
        """Give back what is not on loan, and the rest as it comes back."""
        with self._changed:
            self._closed = True
            self._returns.clear()
            for block in self._copying:
                self._copied(block, wait=True)
                self._drop(block)
            self._copying.clear()
            self._make_room(self.budget_bytes)

    def _find(self, size: int) -> Block | None:
        """Return a free block of `size`, or a new one where there is room; the lock is held."""
        if self._closed:
            raise OverloadedError("the pinned memory is closed")
        self._returns.clear()
        self._collect()
        if self._free[size]:
            return self._free[size].pop()
        self._make_room(size)
        if self._held_bytes + size > self.budget_bytes:
            return None
        block = Block(self._cuda.host_alloc(size + PAGE_BYTES), size)
        self._held_bytes += size
        return block

    def _collect(self) -> None:
        """Move the blocks whose copies are over to the free ones."""
        still = []
        for block in self._copying:
            if self._copied(block):
                self._free[block.size].append(block)
            else:
                still.append(block)
        self._copying = still

    def _make_room(self, size: int) -> None:
        """Drop free blocks until `size` more bytes fit, as far as there are any."""
        for blocks in self._free.values():
            while blocks and self._held_bytes + size > self.budget_bytes:
                self._drop(blocks.pop())

    def _take_back(self, block: Block) -> None:
        self._lent_bytes -= block.size
        if self._closed:
            self._copied(block, wait=True)
            self._drop(block)
        elif block.events:
            self._copying.append(block)
        else:
            self._free[block.size].append(block)

    def _copied(self, block: Block, *, wait: bool = False) -> bool:
        while not all(self._cuda.done(event) for event in block.events.values()):
            if not wait:
                return False
            time.sleep(COPY_LOOK_S)
        return True

    def _drop(self, block: Block) -> None:
        for event in block.events.values():
            self._cuda.destroy_event(event)
        self._cuda.host_free(block.address)
        self._held_bytes -= block.size
