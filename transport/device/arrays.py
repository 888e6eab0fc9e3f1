"""Device memory as CuPy arrays: what kernels take, with NumPy's slices and views."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from kernels.errors import ConfigError
from kernels.typing import DeviceArray

View = Callable[[int, int, object, int], DeviceArray]
"""Makes an array over memory: address, bytes, the owner to keep, the device's ordinal."""


@cache
def cupy() -> Any:
    """Return CuPy.

    Raises
    ------
    ConfigError
        It is not installed.
    """
    try:
        return importlib.import_module("cupy")
    except ImportError as failure:
        raise ConfigError(f"CuPy is missing: install pgflight-server[cuda13] ({failure})") from failure


@dataclass(frozen=True, slots=True)
class _Address:
    """A stream, by CUDA's stream protocol."""

    stream: int

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.stream


def cupy_stream(stream: int) -> Any:
    """Return CuPy's view of a stream of the current device; 0 is its default stream."""
    return cupy().cuda.Stream.from_external(_Address(stream))


def view(address: int, size_bytes: int, owner: object, ordinal: int) -> DeviceArray:
    """Return `size_bytes` of device memory as a uint8 array; `owner` lives as long as it or any view of it."""
    memory = cupy().cuda.UnownedMemory(address, size_bytes, owner, ordinal)
    return cupy().ndarray((size_bytes,), cupy().uint8, memptr=cupy().cuda.MemoryPointer(memory, 0))
