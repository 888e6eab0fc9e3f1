"""Start kernels through the driver.

Numba's own dispatcher waits for the default stream once per array argument, as CUDA's array interface demands, and
takes a tenth of a millisecond: with many streams of blocks its threads mostly wait for one another.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

import numpy as np

from kernels.cuda._cuda import SIMULATED, array_type, cuda, number_type

MOST_WORDS = 256
_PLACES = 8 * np.arange(MOST_WORDS, dtype=np.uint64)
_started: dict[Any, Any] = {}
"""Entry points, by kernel, kinds of arguments and device."""


def launch(function: Any, blocks: int | tuple[int, int], threads: int, stream: int, *arguments: Any) -> None:
    """Start a kernel on a stream and return at once.

    Parameters
    ----------
    function : kernel
    blocks, threads : int
        Blocks of the grid (at least one), and threads of a block.
    stream : int
        The ``cudaStream_t``; 0 is the default stream.
    *arguments
        C-contiguous device arrays, one at least, and integers.  What they hold must be there on that stream.
    """
    if SIMULATED:
        function[blocks, threads](*arguments)
        return
    words: list[int] = []
    kinds: list[Any] = [function]
    for argument in arguments:
        if isinstance(argument, int):
            words.append(argument)
            kinds.append(None)
        elif not argument.flags.c_contiguous:
            raise ValueError("a kernel's arrays must be contiguous")
        else:  # as Numba lays it out: two addresses that are not used, sizes, address, shape, strides
            words += (
                0,
                0,
                argument.size,
                argument.itemsize,
                argument.data.ptr,
                *argument.shape,
                *argument.strides,
            )
            kinds += (argument.dtype, argument.ndim)
            device = argument.device.id
    key = (*kinds, device)
    entry = _started.get(key)
    if entry is None:
        numbers = [int(argument) if isinstance(argument, int) else argument for argument in arguments]
        function[blocks, threads, cuda.external_stream(stream) if stream else 0](*numbers)
        _started[key] = _entry(function, arguments)
        return
    packed = np.array(words, np.int64)
    places = _PLACES[: len(words)] + np.uint64(packed.ctypes.data)
    width, height = blocks if isinstance(blocks, tuple) else (blocks, 1)
    driver = _driver()
    (status,) = driver.cuLaunchKernel(
        entry, width, height, 1, threads, 1, 1, 0, stream, places.ctypes.data, 0
    )  # fmt: skip
    if status != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"a kernel could not be started: {status.name}")


def _entry(function: Any, arguments: tuple[Any, ...]) -> Any:
    """Return the entry point of what Numba has compiled for such arguments, on the current device."""
    signature = tuple(
        number_type if isinstance(argument, int) else array_type(argument.dtype, argument.ndim)
        for argument in arguments
    )
    library = function.overloads[signature]._codelibrary  # noqa: SLF001 - why the release of numba-cuda is pinned
    return _driver().CUfunction(int(library.get_cufunc().kernel.handle))


@cache
def _driver() -> Any:
    return importlib.import_module("cuda.bindings.driver")
