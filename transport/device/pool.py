"""Device memory to decode in: RMM's pool, or CuPy's where RMM is not installed.

Only what every RMM release for CUDA 13 has is used: a buffer is made by its size and filled by its address
(`Cuda.copy_to_device`).  ``DeviceBuffer.copy_from_host`` knows no offset, so it could only fill a buffer at once.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from kernels.errors import ConfigError, OverloadedError
from kernels.typing import DeviceArray
from transport.device.arrays import cupy, cupy_stream, view
from transport.device.cuda import Cuda, Gpu

LOOK_S = 0.02
"""How often to look whether memory has come back."""
GRAIN_BYTES = 256
"""Pool sizes are multiples of this."""


@dataclass(frozen=True, slots=True)
class DeviceRegion:
    """Device memory on loan: it goes back, in the order of the stream it was asked for on, with the last reference
    to the array or a view of it.
    """

    array: DeviceArray
    """The bytes as a uint8 CuPy array, 256-byte aligned."""

    @property
    def address(self) -> int:
        """Where the bytes begin."""
        return int(self.array.data.ptr)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        interface: dict[str, Any] = self.array.__cuda_array_interface__
        return interface


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """How much of a pool is in use.

    Parameters
    ----------
    allocator : str
        ``rmm 26.10.0`` or the like.
    used_bytes, peak_bytes : int
        On loan now, and at most so far.
    pool_bytes, maximum_bytes : int
        Taken from the device, and how far that may go.
    """

    allocator: str
    used_bytes: int
    peak_bytes: int
    pool_bytes: int
    maximum_bytes: int


class Allocator(Protocol):
    """Where a pool's memory comes from."""

    name: str

    def take(self, size_bytes: int, stream: int) -> DeviceArray:
        """Return a uint8 array; MemoryError where there is no room.  The device is current."""

    def counts(self) -> tuple[int, int, int]:
        """Return used, peak and pool bytes."""


class RmmAllocator:
    """A pool of RMM over plain cudaMalloc."""

    def __init__(self, gpu: Gpu, initial_bytes: int, maximum_bytes: int) -> None:
        rmm: Any = importlib.import_module("rmm")
        streams: Any = importlib.import_module("rmm.pylibrmm.stream")
        self.name = f"rmm {rmm.__version__}"
        rmm.set_logging_level(rmm.level_enum.critical)  # no room is no error: `DevicePool` tries again
        self._gpu = gpu
        self._buffer = rmm.DeviceBuffer
        self._default_stream, self._stream = streams.DEFAULT_STREAM, streams.Stream
        self._pool = rmm.mr.PoolMemoryResource(rmm.mr.CudaMemoryResource(), initial_bytes, maximum_bytes)
        self._counted = rmm.mr.StatisticsResourceAdaptor(self._pool)

    def take(self, size_bytes: int, stream: int) -> DeviceArray:
        """Return an array over a buffer."""
        # RMM takes CuPy's streams in every release, raw addresses in none.
        ours = self._stream(cupy_stream(stream)) if stream else self._default_stream
        buffer = self._buffer(size=size_bytes, stream=ours, mr=self._counted)
        return view(buffer.ptr, size_bytes, buffer, self._gpu.ordinal)

    def counts(self) -> tuple[int, int, int]:
        """Return used, peak and pool bytes."""
        counts = self._counted.allocation_counts
        return counts.current_bytes, counts.peak_bytes, self._pool.pool_size()


class CupyAllocator:
    """A pool of CuPy's own."""

    def __init__(self, gpu: Gpu, initial_bytes: int, maximum_bytes: int) -> None:
        self.name = f"cupy {cupy().__version__}"
        self._gpu = gpu
        self._peak_bytes = 0
        self._pool = cupy().cuda.MemoryPool()
        self._pool.set_limit(size=maximum_bytes)
        self._pool.malloc(initial_bytes)  # dropped at once, and so kept by the pool

    def take(self, size_bytes: int, stream: int) -> DeviceArray:
        """Return an array; CuPy's pool orders reuse by its current stream."""
        with cupy_stream(stream):
            array = cupy().ndarray((size_bytes,), cupy().uint8, memptr=self._pool.malloc(size_bytes))
        self._peak_bytes = max(self._peak_bytes, self._pool.used_bytes())
        return array

    def counts(self) -> tuple[int, int, int]:
        """Return used, peak and pool bytes."""
        return self._pool.used_bytes(), self._peak_bytes, self._pool.total_bytes()


def allocator(gpu: Gpu, initial_bytes: int, maximum_bytes: int) -> Allocator:
    """Return RMM's allocator, CuPy's where RMM cannot be imported.  The device is current."""
    try:
        return RmmAllocator(gpu, initial_bytes, maximum_bytes)
    except ImportError:
        return CupyAllocator(gpu, initial_bytes, maximum_bytes)


class DevicePool:
    """Memory of one device within bounds; waits where they are reached.  Thread-safe.

    Parameters
    ----------
    cuda : Cuda
    gpu : Gpu
    initial_bytes, maximum_bytes : int
        What is taken from the device at once, and at most.
    wait_s : float
        How long `allocate` waits before it refuses.
    make : callable
        Makes the allocator.

    Raises
    ------
    ConfigError
        The bounds make no sense.
    OverloadedError
        The device has not that much left.
    """

    def __init__(
        self,
        cuda: Cuda,
        gpu: Gpu,
        *,
        initial_bytes: int,
        maximum_bytes: int,
        wait_s: float = 30.0,
        make: Callable[[Gpu, int, int], Allocator] = allocator,
    ) -> None:
        if not 0 < initial_bytes <= maximum_bytes:
            raise ConfigError(f"GPU memory: {initial_bytes} to {maximum_bytes} bytes make no sense")
        self.gpu = gpu
        self.maximum_bytes = -(-maximum_bytes // GRAIN_BYTES) * GRAIN_BYTES
        self._cuda = cuda
        self._wait_s = wait_s
        with cuda.on(gpu.ordinal):
            try:
                self._allocator = make(gpu, -(-initial_bytes // GRAIN_BYTES) * GRAIN_BYTES, self.maximum_bytes)
            except MemoryError as failure:
                raise OverloadedError(f"{gpu.uuid} has no {initial_bytes} bytes left for the pool") from failure

    def allocate(
        self, size_bytes: int, /, *, stream: int = 0, check: Callable[[], None] | None = None
    ) -> DeviceRegion:
        """Return a region, whose contents are arbitrary.

        Parameters
        ----------
        size_bytes : int
        stream : int
            Where it is used first: memory that other work has used before is ready in this stream's order.  The
            stream must outlive the region, and be the last one that uses it.
        check : callable, optional
            Called while waiting; raises to give up.

        Raises
        ------
        OverloadedError
            More than the pool may ever hold, or none came back for the whole waiting time.
        """
        if size_bytes > self.maximum_bytes:
            raise OverloadedError(
                f"{size_bytes} bytes of GPU memory exceed the pool's maximum of {self.maximum_bytes} bytes"
            )
        deadline = time.monotonic() + self._wait_s
        while True:
            with self._cuda.on(self.gpu.ordinal):
                try:
                    return DeviceRegion(self._allocator.take(max(1, size_bytes), stream))
                except MemoryError as failure:
                    if time.monotonic() >= deadline:
                        raise OverloadedError(
                            f"no {size_bytes} bytes of GPU memory came free in {self._wait_s:g} s "
                            f"(the pool's maximum is {self.maximum_bytes} bytes)"
                        ) from failure
            if check is not None:
                check()
            time.sleep(LOOK_S)

    def statistics(self) -> PoolStatistics:
        """Return how much is in use."""
        with self._cuda.on(self.gpu.ordinal):
            used, peak, pool = self._allocator.counts()
        return PoolStatistics(self._allocator.name, used, peak, pool, self.maximum_bytes)
