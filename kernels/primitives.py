"""Scalar functions shared by the host and the CUDA twin: plain Python, decorated once by each.

Every byte is widened to 64 bits before it is shifted, every literal is typed: so compiled code, the CUDA
simulator and plain Python agree, and LLVM fuses the byte loads into one load and one byte swap.
"""

from __future__ import annotations

from typing import Any

import numpy as np

u64 = np.uint64
i64 = np.int64
i32 = np.int32
i16 = np.int16

Int = Any
"""An integer inside a kernel: compiled, it has a width of its own; to Python it is an int or a NumPy scalar."""
Bytes = Any
"""A one-dimensional uint8 array, on whichever side the function is compiled for."""


def be16(wire: Bytes, at: Int) -> Int:
    """Load a big-endian int16 at byte ``at``, sign-extended."""
    bits = (u64(wire[at]) << u64(8)) | u64(wire[at + u64(1)])
    return i64(i16(bits))


def be32(wire: Bytes, at: Int) -> Int:
    """Load a big-endian int32 at byte ``at``, sign-extended."""
    bits = (
        (u64(wire[at]) << u64(24))
        | (u64(wire[at + u64(1)]) << u64(16))
        | (u64(wire[at + u64(2)]) << u64(8))
        | u64(wire[at + u64(3)])
    )
    return i64(i32(bits))


def be64(wire: Bytes, at: Int) -> Int:
    """Load a big-endian int64 at byte ``at``."""
    bits = (
        (u64(wire[at]) << u64(56))
        | (u64(wire[at + u64(1)]) << u64(48))
        | (u64(wire[at + u64(2)]) << u64(40))
        | (u64(wire[at + u64(3)]) << u64(32))
        | (u64(wire[at + u64(4)]) << u64(24))
        | (u64(wire[at + u64(5)]) << u64(16))
        | (u64(wire[at + u64(6)]) << u64(8))
        | u64(wire[at + u64(7)])
    )
    return i64(bits)
