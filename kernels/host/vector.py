"""Decode pgvector's vectors of a declared dimension: one contiguous matrix per column."""

from __future__ import annotations

from kernels.host._jit import inline
from kernels.host.field import ABSENT, clear_bit, fail, move_cursor
from kernels.host.memory import be16, be32
from kernels.layout import (
    BAD_LENGTH,
    BEYOND_BLOCK,
    DELTA,
    OTHER_DIMENSION,
    SCALE,
    TOP,
    VALIDITY_AT,
    VALUES_AT,
    WIDTH,
)
from kernels.primitives import Bytes, Int, i64, u64
from kernels.typing import Arena, Int64s, Uint32s


@inline
def vector(
    wire: Bytes,
    last: Int,
    end: Int,
    cursors: Uint32s,
    first: Int,
    count: Int,
    column: Int64s,
    arena: Arena,
    tile: Int64s,
    failure: Int64s,
) -> Int:
    """Decode vectors of WIDTH bytes in numbers of SCALE bytes; return the number of NULLs, or -1."""
    bytes8, bytes16, bytes32, _ = arena
    width, size = column[WIDTH], column[SCALE]
    numbers = u64(width // size)
    bits = u64(column[VALIDITY_AT] * 8 + first)
    delta = u64(tile[DELTA])
    nulls = 0
    top = u64(0)
    for row in range(count):
        cursor = u64(cursors[row]) + delta
        if cursor > last and cursor != ABSENT:
            return fail(failure, BEYOND_BLOCK, row, cursor)
        length = be32(wire, cursor) if cursor <= last else i64(-1)
        target = u64(column[VALUES_AT] // size) + u64(first + row) * numbers
        if length == -1:
            if size == 4:
                bytes32[target : target + numbers] = 0
            else:
                bytes16[target : target + numbers] = 0
            clear_bit(bytes8, bits + u64(row))
            nulls += 1
        else:
            if length < 4:
                return fail(failure, BAD_LENGTH, row, cursor)
            if cursor + u64(4) + u64(length) > end:
                return fail(failure, BEYOND_BLOCK, row, cursor)
            if (
                be16(wire, cursor + u64(4)) != i64(numbers)
                or length != 4 + width
                or be16(wire, cursor + u64(6)) != 0
            ):
                return fail(failure, OTHER_DIMENSION, row, cursor)
            source = cursor + u64(8)
            if size == 4:
                for number in range(numbers):
                    bytes32[target + number] = be32(wire, source + number * u64(4))
            else:
                for number in range(numbers):
                    bytes16[target + number] = be16(wire, source + number * u64(2))
        top = move_cursor(cursors, row, cursor, length, top)
    tile[DELTA] = 0
    tile[TOP] = i64(top)
    return nulls
