"""What every shape does alike: bits, NULLs, failures."""

from __future__ import annotations

import numpy as np

from kernels import layout
from kernels.cuda._cuda import atomic_and, atomic_min, atomic_or, device
from kernels.cuda.table import FAILURE, SHAPE, SOURCE, VALIDITY_AT, VALUES_AT, WIDTH
from kernels.primitives import Int, i32, i64, u64
from kernels.typing import DeviceArena, DeviceArray

IS_NULL = -1
"""What a shape returns for a value that the client wants as NULL, instead of OK or a failure code."""


@device
def clear_bit(bits: DeviceArray, bit: Int) -> None:
    """Set one bit of a bitmap of uint32 words to zero."""
    atomic_and(bits, bit >> u64(5), np.uint32(u64(0xFFFFFFFF) ^ (u64(1) << (bit & u64(31)))))


@device
def set_bit(bits: DeviceArray, bit: Int) -> None:
    """Set one bit of a bitmap of uint32 words to one."""
    atomic_or(bits, bit >> u64(5), np.uint32(u64(1) << (bit & u64(31))))


@device
def clear_bitmaps(word: Int, column: Int, state: DeviceArray, bits: DeviceArray) -> None:
    """All valid, all false, for 32 rows."""
    bits[(u64(state[column + VALIDITY_AT]) >> u64(2)) + u64(word)] = np.uint32(0xFFFFFFFF)
    if state[column + SHAPE] == layout.BOOL:
        bits[(u64(state[column + VALUES_AT]) >> u64(2)) + u64(word)] = np.uint32(0)


@device
def put_null(row: Int, column: Int, state: DeviceArray, arena: DeviceArena, sources: DeviceArray) -> None:
    """Mark a value as missing; its bytes become zero, for the memory held something else before."""
    bits, halves, words, longs = arena
    at = u64(state[column + VALUES_AT])
    shape = state[column + SHAPE]
    clear_bit(bits, u64(state[column + VALIDITY_AT]) * u64(8) + u64(row))
    width = state[column + WIDTH]
    if shape == layout.VARLEN:
        words[(at >> u64(2)) + u64(row + 1)] = i32(0)
    elif shape == layout.BOOL:
        return  # bitmaps start as zeros
    elif shape == layout.VECTOR:
        sources[u64(state[column + SOURCE]) + u64(row)] = np.uint32(layout.ABSENT)
    elif width == 2:
        halves[(at >> u64(1)) + u64(row)] = np.int16(0)
    elif width == 4:
        words[(at >> u64(2)) + u64(row)] = i32(0)
    else:
        for word in range(width >> 3):
            longs[(at >> u64(3)) + u64(row * (width >> 3) + word)] = i64(0)


@device
def record(state: DeviceArray, word: Int, row: Int, index: Int, code: Int) -> None:
    """Note a failure; the one of the smallest row, then column, remains."""
    atomic_min(state, word, (i64(row) << i64(24)) | (i64(index) << i64(8)) | i64(code))


@device
def record_part(state: DeviceArray, slot: Int, item: Int, code: Int) -> None:
    """Note a failure of a part; the one of the smallest slot, then value, remains."""
    atomic_min(state, FAILURE, (i64(slot) << i64(40)) | (i64(item) << i64(8)) | i64(code))


def unpack(packed: int) -> tuple[int, int, int]:
    """Take a failure apart: (code, row, column)."""
    return packed & 0xFF, packed >> 24, (packed >> 8) & 0xFFFF


def unpack_part(packed: int) -> tuple[int, int, int]:
    """Take a failure of a part apart: (code, value, slot)."""
    return packed & 0xFF, (packed >> 8) & 0xFFFFFFFF, packed >> 40
