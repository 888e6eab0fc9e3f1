"""Export slabs: GPU memory that other processes map, cut into one contiguous region per batch.

A mapping shows all of an allocation, so nothing but exported batches lies in a slab, and a slab is a multiple of
2 MiB: of what CUDA would otherwise share with allocations of ours that are nobody's business.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from kernels.errors import ConfigError, OverloadedError
from transport.device.cuda import Cuda, CudaError, Gpu
from transport.device.freelist import FreeList

SLAB_GRAIN_BYTES = 2 << 20
REGION_GRAIN_BYTES = 64 << 10
"""Regions are multiples of this: fewer sizes, fewer holes."""


@dataclass(frozen=True, slots=True, eq=False)
class Slab:
    """One allocation of plain cudaMalloc.

    Parameters
    ----------
    gpu : Gpu
    address : int
    size_bytes : int
    handle : bytes
        By which other processes map it.
    """

    gpu: Gpu
    address: int
    size_bytes: int
    handle: bytes
    pieces: FreeList = field(repr=False)


@dataclass(frozen=True, slots=True)
class Place:
    """A region in a slab."""

    slab: Slab
    offset: int
    size_bytes: int

    @property
    def address(self) -> int:
        """Where it begins, in this process."""
        return self.slab.address + self.offset


class SlabSet:
    """The slabs of one device.  They are made when needed and stay: freeing what another process has mapped is
    undefined.  Not thread-safe.

    Parameters
    ----------
    cuda : Cuda
    gpu : Gpu
    slab_bytes : int
        Size of a slab, and so of the largest region; a multiple of 2 MiB.
    maximum_bytes : int
        What all slabs may take.

    Raises
    ------
    ConfigError
        The sizes make no sense.
    """

    def __init__(self, cuda: Cuda, gpu: Gpu, *, slab_bytes: int, maximum_bytes: int) -> None:
        if slab_bytes <= 0 or slab_bytes % SLAB_GRAIN_BYTES:
            raise ConfigError(f"export slabs: {slab_bytes} bytes is not a multiple of 2 MiB")
        if maximum_bytes < slab_bytes:
            raise ConfigError(f"export slabs: {maximum_bytes} bytes do not hold one slab of {slab_bytes}")
        self.gpu = gpu
        self.slab_bytes = slab_bytes
        self.maximum_bytes = maximum_bytes
        self.slabs: list[Slab] = []
        self._cuda = cuda

    @property
    def held_bytes(self) -> int:
        """Bytes of all slabs."""
        return len(self.slabs) * self.slab_bytes

    @property
    def free_bytes(self) -> int:
        """Bytes of them that hold no region."""
        return sum(slab.pieces.free for slab in self.slabs)

    def take(self, size_bytes: int) -> Place | None:
        """Return a place of at least `size_bytes`, None while there is none.

        Raises
        ------
        OverloadedError
            It is larger than a slab, or the device has no memory for the first slab.
        """
        size = rounded(size_bytes)
        if size > self.slab_bytes:
            raise OverloadedError(
                f"a batch of {size_bytes} bytes exceeds the export slabs of {self.slab_bytes} bytes: "
                "ask for a smaller batch_bytes"
            )
        for slab in self.slabs:
            offset = slab.pieces.take(size)
            if offset is not None:
                return Place(slab, offset, size)
        grown = self._grow()
        if grown is None:
            return None
        grown.pieces.take(size)
        return Place(grown, 0, size)  # the first piece of a whole range is its beginning

    def give_back(self, place: Place) -> None:
        """Take a place back: it may be handed out again at once."""
        place.slab.pieces.give_back(place.offset, place.size_bytes)

    def shrink(self, place: Place, size_bytes: int) -> Place:
        """Give back what lies behind the first `size_bytes` of a place, and return what is left of it."""
        size = rounded(size_bytes)
        if size > place.size_bytes:
            raise ValueError(f"a place of {place.size_bytes} bytes cannot shrink to {size_bytes}")
        if size < place.size_bytes:
            place.slab.pieces.give_back(place.offset + size, place.size_bytes - size)
        return replace(place, size_bytes=size)

    def close(self) -> None:
        """Free the slabs; nobody may have them mapped any more."""
        while self.slabs:
            self._cuda.free(self.slabs.pop().address)

    def _grow(self) -> Slab | None:
        """Make one more slab, where the bounds and the device allow it."""
        if self.held_bytes + self.slab_bytes > self.maximum_bytes:
            return None
        try:
            address = self._cuda.malloc(self.slab_bytes, self.gpu.ordinal)
        except OverloadedError:
            if self.slabs:
                return None
            raise
        try:
            handle = self._cuda.ipc_handle(address)
        except CudaError:
            self._cuda.free(address)
            raise
        slab = Slab(self.gpu, address, self.slab_bytes, handle, FreeList(self.slab_bytes))
        self.slabs.append(slab)
        return slab


def rounded(size_bytes: int) -> int:
    """Round up to whole region grains, at least one."""
    return -(-max(1, size_bytes) // REGION_GRAIN_BYTES) * REGION_GRAIN_BYTES
