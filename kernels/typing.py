"""Type aliases and protocols of the package, one docstring each."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Uint8s = npt.NDArray[np.uint8]
"""Raw bytes: a block of wire data or an arena of Arrow buffers."""
Uint32s = npt.NDArray[np.uint32]
"""Byte offsets into a block: blocks are smaller than 4 GiB."""
Int64s = npt.NDArray[np.int64]
"""A descriptor table, a result table or a failure record (see kernels/layout.py)."""
Arena = tuple[npt.NDArray[Any], ...]
"""One memory region seen as uint8, int16, int32 and int64 elements."""


DeviceArray = Any
"""A one-dimensional array in device memory: CuPy's, or NumPy's where kernels are simulated."""
DeviceArena = tuple[DeviceArray, ...]
"""One device region seen as uint32, int16, int32 and int64 elements."""


class Region(Protocol):
    """Memory on loan: it goes back to where it came from when the last reference to the object is gone."""

    @property
    def array(self) -> Uint8s:
        """The bytes, 64-byte aligned."""


class Allocate(Protocol):
    """Hands out regions of at least the size asked for."""

    def __call__(self, size_bytes: int, /) -> Region:
        """Return a region, waiting for one where the budget is spent."""


class DeviceRegion(Protocol):
    """Device memory on loan: it goes back where it came from when the last reference to the object is gone."""

    @property
    def array(self) -> DeviceArray:
        """The bytes as uint8, 64-byte aligned, with NumPy's slices and views."""


class DeviceAllocate(Protocol):
    """Hands out device regions of at least the size asked for."""

    def __call__(self, size_bytes: int, /) -> DeviceRegion:
        """Return a region, whose contents are arbitrary."""


class Backend(Protocol):
    """One twin of the kernels: same functions, same argument order (see kernels/host)."""

    @property
    def name(self) -> str:
        """``"cpu"`` or ``"cuda"``."""

    @property
    def reason(self) -> str:
        """Why this twin was chosen, for people."""

    @property
    def scan(self) -> Any:
        """Find the rows of a block."""

    @property
    def decode(self) -> Any:
        """Decode the rows of a block into an arena."""

    @property
    def survey(self) -> Any:
        """Find the parts of nested columns."""

    @property
    def decode_parts(self) -> Any:
        """Decode them into the arena."""
