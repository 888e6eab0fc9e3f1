"""What every shape does alike: mark a NULL, move on, report a failure."""

from __future__ import annotations

import numpy as np

from kernels import layout
from kernels.host._jit import inline
from kernels.layout import CODE, OFFSET, ROW
from kernels.primitives import Bytes, Int, u64
from kernels.typing import Int64s, Uint32s

ABSENT = u64(layout.ABSENT)


@inline
def clear_bit(bitmap: Bytes, bit: Int) -> None:
    """Set one bit of a bitmap to zero."""
    bitmap[bit >> u64(3)] &= ~(u64(1) << (bit & u64(7)))


@inline
def move_cursor(cursors: Uint32s, row: Int, cursor: Int, length: Int, top: Int) -> Int:
    """Step over a field of `length` bytes (-1: NULL, none); return the larger of `top` and the new cursor."""
    after = cursor + u64(4) + u64(max(length, 0))
    cursors[row] = after
    return max(top, after)


@inline
def fail(failure: Int64s, code: Int, row: Int, offset: Int) -> Int:
    """Fill the failure record (`row` counts from the tile's first) and return the kernels' error value."""
    failure[CODE] = code
    failure[ROW] = row
    failure[OFFSET] = np.int64(offset)
    return -1
