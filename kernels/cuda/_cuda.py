"""Numba CUDA as the kernels use it: the only importer of numba.cuda.

Device functions know nothing of grids: kernels are thin shells that pass them the indices.  What a device
function needs of the machine (atomics, the barrier) is wrapped here, so a successor of numba-cuda, or a test that
compiles the same functions for the CPU, replaces this module alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
import numpy.typing as npt
from numba import cuda as _numba_cuda

from kernels.primitives import Int
from kernels.typing import DeviceArray

_F = TypeVar("_F", bound=Callable[..., object])

cuda: Any = _numba_cuda
config: Any = numba.config
config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # some sums are the work of one block
SIMULATED = bool(config.ENABLE_CUDASIM)
"""Kernels run as Python threads over NumPy arrays (NUMBA_ENABLE_CUDASIM=1, read when Numba is imported)."""


def device(function: _F) -> _F:
    """Compile a function that kernels call."""
    compiled: _F = cuda.jit(device=True)(function)
    return compiled


def kernel(function: _F) -> _F:
    """Compile a kernel; kept on disk where kernels.host has chosen a directory, one for exactly these sources."""
    compiled: _F = cuda.jit(cache=bool(config.CACHE_DIR))(function)
    return compiled


number_type: Any = numba.types.int64
"""What Numba makes of a Python int."""


def array_type(dtype: npt.DTypeLike, dimensions: int) -> Any:
    """Return what Numba makes of a C-contiguous device array."""
    return numba.types.Array(numba.from_dtype(np.dtype(dtype)), dimensions, "C")


def is_available() -> bool:
    """Tell whether kernels can run here: a driver and a device, or the simulator."""
    return SIMULATED or bool(cuda.is_available())


@device
def atomic_min(array: DeviceArray, index: Int, value: Int) -> None:
    """Replace ``array[index]`` by `value` if that is smaller."""
    cuda.atomic.min(array, index, value)


@device
def atomic_add(array: DeviceArray, index: Int, value: Int) -> None:
    """Add `value` to ``array[index]``."""
    cuda.atomic.add(array, index, value)


@device
def atomic_and(array: DeviceArray, index: Int, value: Int) -> None:
    """Keep only the bits of ``array[index]`` that `value` has."""
    cuda.atomic.and_(array, index, value)


@device
def atomic_or(array: DeviceArray, index: Int, value: Int) -> None:
    """Set the bits of `value` in ``array[index]``."""
    cuda.atomic.or_(array, index, value)


@device
def barrier() -> None:
    """Wait for all threads of the block; every one of them must come here."""
    cuda.syncthreads()


@device
def count_bits(word: Int) -> Int:
    """Count the ones of a uint32."""
    return cuda.popc(word)
