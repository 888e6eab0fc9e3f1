"""Device memory: regions from an allocator, and copies to and from it on a stream."""

from __future__ import annotations

import importlib
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.cuda._cuda import SIMULATED
from kernels.typing import DeviceAllocate, DeviceArray, DeviceRegion

HOST_TO_DEVICE, DEVICE_TO_HOST, ON_DEVICE = 1, 2, 3
"""``cudaMemcpyKind``"""

LANDING_BYTES = 64 << 10
_here = threading.local()
arrays: Any = np if SIMULATED else importlib.import_module("cupy")


@dataclass(frozen=True, slots=True)
class OwnedRegion:
    """Device memory that goes back to CuPy's current allocator (RMM, where that is set) with the object."""

    array: DeviceArray


def allocate(size_bytes: int) -> OwnedRegion:
    """Return a region of device memory with arbitrary contents: a `DeviceAllocate`.

    CuPy's pool hands memory on along its current stream as soon as the region is dropped: drop it only when the
    work of every other stream on it is done.
    """
    return OwnedRegion(arrays.empty(size_bytes, np.uint8))


class Scratch:
    """Memory that is used again and again, each piece known by a name: it grows, and keeps its size.

    Parameters
    ----------
    allocate : DeviceAllocate
    """

    def __init__(self, allocate: DeviceAllocate) -> None:
        self._allocate = allocate
        self._regions: dict[str, DeviceRegion] = {}

    def take(self, name: str, size_bytes: int) -> DeviceArray:
        """Return a piece as bytes; what it held is lost where it must grow."""
        size = -(-size_bytes // 64) * 64
        region = self._regions.get(name)
        if region is None or region.array.size < size:
            self._regions.pop(name, None)  # given back first
            region = self._regions[name] = self._allocate(size)
        return region.array[:size_bytes]

    def extend(self, name: str, size_bytes: int, *, stream: int) -> DeviceArray:
        """Return a piece as bytes, with all that it held; synchronises with the stream where it must grow."""
        old = self._regions.get(name)
        if old is not None and old.array.size < size_bytes:
            size = max(-(-size_bytes // 64) * 64, 2 * old.array.size)
            region = self._allocate(size)
            copy_on_device(region.array[: old.array.size], old.array, stream=stream)
            self._regions[name] = region
        return self.take(name, size_bytes)

    def table(self, name: str, height: int, width: int) -> DeviceArray:
        """Return a piece as a table of uint32, as `take` does."""
        return self.take(name, 4 * height * width).view(np.uint32).reshape(height, width)


def upload(target: DeviceArray, source: npt.NDArray[Any], *, stream: int) -> None:
    """Copy host memory to contiguous device memory of the same size.

    Returns when the copy is queued on `stream`; pageable memory may then be changed, pinned memory only when the
    stream has come past the copy.
    """
    if SIMULATED:
        target[...] = source
        return
    arrays.cuda.runtime.memcpyAsync(address_of(target), source.ctypes.data, source.nbytes, HOST_TO_DEVICE, stream)


def copy_on_device(target: DeviceArray, source: DeviceArray, *, stream: int) -> None:
    """Copy contiguous device memory to other such memory of the same size; synchronises with the stream."""
    if SIMULATED:
        target[...] = source
        return
    runtime = arrays.cuda.runtime
    runtime.memcpyAsync(address_of(target), address_of(source), target.nbytes, ON_DEVICE, stream)
    runtime.streamSynchronize(stream)


def download(source: DeviceArray, *, stream: int, into: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
    """Copy contiguous device memory to the host, after all that `stream` has queued; synchronises with it.

    Parameters
    ----------
    source : device array
    stream : int
    into : array, optional
        Of the same size; a new one by default.
    """
    if SIMULATED:
        copied = np.array(source) if into is None else into
        copied[...] = source
        return copied
    target = np.empty(source.shape, source.dtype) if into is None else into
    size = target.nbytes
    landing = _landing() if size <= LANDING_BYTES else target
    arrays.cuda.runtime.memcpyAsync(landing.ctypes.data, address_of(source), size, DEVICE_TO_HOST, stream)
    arrays.cuda.runtime.streamSynchronize(stream)
    if landing is not target:
        target.reshape(-1).view(np.uint8)[:] = landing[:size]
    return target


def _landing() -> npt.NDArray[np.uint8]:
    """Return pinned memory of this thread: the driver spins while it copies to any other."""
    landing: npt.NDArray[np.uint8] | None = getattr(_here, "landing", None)
    if landing is None:
        landing = _here.landing = importlib.import_module("cupyx").empty_pinned(LANDING_BYTES, np.uint8)
    return landing


def device_name() -> str:
    """Return the name of the current device, for people."""
    if SIMULATED:
        return "Numba's simulator"
    runtime = arrays.cuda.runtime
    name: bytes = runtime.getDeviceProperties(runtime.getDevice())["name"]
    return name.decode()


def address_of(array: DeviceArray) -> int:
    """Return the address of the first byte."""
    interface = array.__array_interface__ if SIMULATED else array.__cuda_array_interface__
    address: int = interface["data"][0]
    return address
