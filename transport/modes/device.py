"""The transports that end in GPU memory: chunks copied to their offset there, and files read into it."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np

from kernels.errors import ConnectionLostError, OverloadedError
from kernels.typing import DeviceRegion, Region
from transport.device.cuda import Cuda
from transport.device.pool import DevicePool
from transport.modes.collected import CollectedReply, allocate_nothing
from transport.modes.counters import Counters
from transport.modes.stores import CHUNK_BYTES, Limited, MakeStore
from transport.modes.through_file import ThroughFile
from transport.reader import Reader
from transport.reply import PAD_BYTES, Reply

THREADS = 8
TASK_BYTES = 16 << 20
THREADS_VARIABLE = "KVIKIO_NTHREADS"
PAGE_BYTES = 4096
"""What direct reads are aligned to, in the file and in the device's memory."""


class DeviceSide(Protocol):
    """One stream of a GPU, and its memory."""

    resident: bool
    """Whether blocks are in the device's memory already when they are to be scanned."""

    def on(self) -> AbstractContextManager[None]:
        """Make the device the calling thread's."""

    def allocate(self, size_bytes: int, /) -> DeviceRegion:
        """Return a region."""

    def upload(self, address: int, source: int, size_bytes: int) -> None:
        """Copy from pageable host memory, which may be changed when this returns."""

    def move(self, target: int, source: int, size_bytes: int) -> None:
        """Copy within the device, in order; the two do not overlap."""

    def read_file(self, path: str, file_offset: int, array: Any) -> int:
        """Read a file into device memory; return how many bytes."""

    def synchronize(self) -> None:
        """Wait for all of that."""

    def address_of(self, array: Any) -> int:
        """Return where an array lies."""


class GpuSide:
    """A stream of a real GPU.

    Parameters
    ----------
    cuda : Cuda
    pool : DevicePool
    stream : int
    """

    def __init__(self, cuda: Cuda, pool: DevicePool, stream: int) -> None:
        self.resident = False
        self._cuda = cuda
        self._pool = pool
        self._stream = stream
        self._path = ""
        self._file: Any = None

    def on(self) -> AbstractContextManager[None]:
        """Make the device the calling thread's."""
        return self._cuda.on(self._pool.gpu.ordinal)

    def allocate(self, size_bytes: int, /) -> DeviceRegion:
        """Return a region that is ready on the stream."""
        return self._pool.allocate(size_bytes, stream=self._stream)

    def upload(self, address: int, source: int, size_bytes: int) -> None:
        """Copy from pageable host memory: CUDA has taken it over when the call returns."""
        self._cuda.copy_to_device(address, source, size_bytes, self._stream)

    def move(self, target: int, source: int, size_bytes: int) -> None:
        """Copy within the device."""
        self._cuda.copy_on_device(target, source, size_bytes, self._stream)

    def read_file(self, path: str, file_offset: int, array: Any) -> int:
        """Read by cuFile: GPUDirect where the driver has it, kvikio's own bounce buffers elsewhere."""
        if path != self._path:
            self._file, self._path = _kvikio().CuFile(path, "r"), path
        self.synchronize()  # kvikio knows nothing of our stream
        return int(self._file.pread(array, array.nbytes, file_offset, TASK_BYTES).get())

    def synchronize(self) -> None:
        """Wait for the stream."""
        self._cuda.synchronize(self._stream)

    def address_of(self, array: Any) -> int:
        """Return where an array lies."""
        interface: Any = getattr(array, "__cuda_array_interface__", None) or array.__array_interface__
        return int(interface["data"][0])


@cache
def _kvikio() -> Any:
    """Return kvikio, with more threads than its default of one, unless its own variable says how many."""
    kvikio: Any = importlib.import_module("kvikio")
    if THREADS_VARIABLE not in os.environ:
        kvikio.defaults.set({"num_threads": THREADS})
    return kvikio


def has_cufile() -> bool:
    """Tell whether files can be read into device memory by cuFile."""
    return find_spec("kvikio") is not None


class DeviceOffsetBuffer(Limited):
    """``chunked`` on a GPU: every chunk is copied from pageable memory to its offset in one device buffer.

    Parameters
    ----------
    side : DeviceSide
    limit_bytes : int
    counters : Counters
    """

    name = "chunked"

    def __init__(self, side: DeviceSide, limit_bytes: int, counters: Counters) -> None:
        super().__init__(side.allocate, limit_bytes, counters)
        self._side = side
        self._chunk = np.empty(min(CHUNK_BYTES, limit_bytes), np.uint8)
        self._region = self._allocate(-(-(limit_bytes + PAD_BYTES) // 64) * 64)
        self._address = side.address_of(self._region.array)

    def room(self) -> memoryview:
        """Return the chunk."""
        self._require_room()
        return memoryview(self._chunk.data)[: self._limit_bytes - self.size]

    def took(self, count: int) -> None:
        """Copy the chunk to its offset."""
        self._side.upload(self._address + self.size, self._chunk.ctypes.data, count)
        self._counters.uploaded(count)
        self.size += count

    def finish(self) -> Region:
        """Return the buffer, when all copies are done."""
        self._side.synchronize()
        return self._region


class DeviceReply(CollectedReply):
    """A reply that is collected in device memory; its few bytes that are not rows are looked at from the host.

    Parameters
    ----------
    side : DeviceSide
    reader, make_store, check
        As for `CollectedReply`.
    """

    def __init__(
        self, side: DeviceSide, reader: Reader, make_store: MakeStore, *, check: Callable[[], None]
    ) -> None:
        super().__init__(reader, make_store, check=check)
        self._side = side

    def fill(self) -> None:
        """Receive until it looks as if all were there."""
        with self._side.on():
            super().fill()

    def message(self) -> bool:
        """Read a message that is not a row."""
        with self._side.on():
            return super().message()


class DeviceFileReply(Reply):
    """``gds`` on a GPU: the spool file is read into device memory, which is scanned and decoded in place.

    Parameters
    ----------
    side : DeviceSide
    source : ThroughFile
    counters : Counters
    block_bytes, max_row_bytes, check
        As for `Reply`.
    """

    def __init__(
        self,
        side: DeviceSide,
        source: ThroughFile,
        counters: Counters,
        *,
        block_bytes: int,
        max_row_bytes: int,
        check: Callable[[], None],
    ) -> None:
        super().__init__(source, allocate_nothing, block_bytes=0, max_row_bytes=max_row_bytes, check=check)
        self._side = side
        self._source = source
        self._counters = counters
        self._new_block = counters.counting(side.allocate)
        self._size = -(-block_bytes // PAGE_BYTES) * PAGE_BYTES + PAGE_BYTES
        self._file_at = 0

    def fill(self) -> None:
        """Read more of the file, once PostgreSQL has sent it, behind what is left of the last block."""
        while self._source.written_bytes == self._file_at:
            self._check()
            self._source.write_more()
        with self._side.on():
            self._read()

    def message(self) -> bool:
        """Read a message that is not a row."""
        with self._side.on():
            return super().message()

    def _read(self) -> None:
        left = self.end - self.begin
        begin = -left % PAGE_BYTES  # what is read then begins on a page, in the file and in the device's memory
        while begin + left + PAGE_BYTES > self._size:
            self._require_growth()
            self._size *= 2
        block = self._new_block(self._size + PAGE_BYTES)
        if left:
            here, there = self._side.address_of(self.block), self._side.address_of(block.array)
            self._side.move(there + begin, here + self.begin, left)
        room = (self._size - begin - left) // PAGE_BYTES * PAGE_BYTES
        size = min(room, self._source.written_bytes - self._file_at)
        at = begin + left
        count = self._side.read_file(self._source.path, self._file_at, block.array[at : at + size])
        if count != size:
            raise ConnectionLostError(f"{count} bytes of {size} were read from the spool file")
        self._side.synchronize()
        self._region = block
        self.base += self.begin - begin
        self.begin, self.end = begin, at + count
        self._file_at += count
        self.received_bytes += count
        self._counters.read_bytes += count
        self._counters.uploaded(count)

    def _require_growth(self) -> None:
        if self._size >= self._max_row_bytes:
            raise OverloadedError(f"a row exceeds {self._max_row_bytes} bytes, the server's limit (max_row_mib)")
