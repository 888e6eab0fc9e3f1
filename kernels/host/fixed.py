"""Decode fields of fixed width: one column over the rows of a tile.

Each shape tries the rows without a branch first: almost every tile of almost every column has no NULL and
nothing to complain about.  If one row differs, the careful loop does the tile again and says what and where.
"""

from __future__ import annotations

from typing import Any

from kernels.host._jit import inline
from kernels.host.field import ABSENT, clear_bit, fail, move_cursor
from kernels.host.memory import be32, be64, be_like, copy16
from kernels.layout import (
    BAD_BOOL,
    BAD_LENGTH,
    BEYOND_BLOCK,
    BIAS,
    DELTA,
    HIGH,
    INFINITE,
    INFINITY,
    INFINITY_NONE,
    INFINITY_NULL,
    LOW,
    OUT_OF_RANGE,
    TOP,
    VALIDITY_AT,
    VALUES_AT,
    WIDTH,
)
from kernels.primitives import Bytes, Int, i32, i64, u64
from kernels.typing import Arena, Int64s, Uint32s


@inline
def fixed(
    values: Any,
    wire: Bytes,
    last: Int,
    cursors: Uint32s,
    first: Int,
    count: Int,
    column: Int64s,
    validity: Bytes,
    tile: Int64s,
    failure: Int64s,
) -> Int:
    """Decode big-endian numbers of the width of `values`; return the number of NULLs, or -1."""
    if u64(tile[TOP] + tile[DELTA]) <= last and all_plain(values, wire, cursors, first, count, column, tile):
        tile[DELTA] += column[WIDTH] + 4
        return 0
    return each(values, wire, last, cursors, first, count, column, validity, tile, failure)


@inline
def all_plain(
    values: Any,
    wire: Bytes,
    cursors: Uint32s,
    first: Int,
    count: Int,
    column: Int64s,
    tile: Int64s,
) -> Any:
    """Decode the column as if no row were NULL or out of range; return whether that was so."""
    width = column[WIDTH]
    bias = column[BIAS]
    low = column[LOW]
    high = column[HIGH]
    at = u64(column[VALUES_AT] // width + first)
    delta = u64(tile[DELTA])
    wrong = i64(0)
    for row in range(count):
        cursor = u64(cursors[row]) + delta
        value = be_like(values, wire, cursor + u64(4))
        wrong |= be32(wire, cursor) ^ width
        wrong |= i64(value < low) | i64(value > high)
        values[at + u64(row)] = value + bias
    return wrong == 0


@inline
def each(
    values: Any,
    wire: Bytes,
    last: Int,
    cursors: Uint32s,
    first: Int,
    count: Int,
    column: Int64s,
    validity: Bytes,
    tile: Int64s,
    failure: Int64s,
) -> Int:
    """Decode the column row by row, NULLs and failures included."""
    width = column[WIDTH]
    bias = column[BIAS]
    low = column[LOW]
    high = column[HIGH]
    at = u64(column[VALUES_AT] // width + first)
    bits = u64(column[VALIDITY_AT] * 8 + first)
    delta = u64(tile[DELTA])
    nulls = 0
    top = u64(0)
    for row in range(count):
        cursor = u64(cursors[row]) + delta
        if cursor > last and cursor != ABSENT:
            return fail(failure, BEYOND_BLOCK, row, cursor)
        length = be32(wire, cursor) if cursor <= last else i64(-1)
        value = i64(0)
        valid = length == width
        if valid:
            value = be_like(values, wire, cursor + u64(4))
            if value < low or value > high:
                code = out_of_range(value, width, column[INFINITY])
                if code != INFINITY_NULL:
                    return fail(failure, code, row, cursor)
                valid = False
        elif length != -1:
            return fail(failure, BAD_LENGTH, row, cursor)
        values[at + u64(row)] = value + bias if valid else i64(0)
        if not valid:
            clear_bit(validity, bits + u64(row))
            nulls += 1
        top = move_cursor(cursors, row, cursor, length, top)
    tile[DELTA] = 0
    tile[TOP] = i64(top)
    return nulls


@inline
def out_of_range(value: Int, width: Int, infinity: Int) -> Int:
    """Classify a value that Arrow cannot hold: INFINITY_NULL to make it NULL, else the failure code."""
    highest = i64(0x7FFFFFFFFFFFFFFF) if width == 8 else i64(0x7FFFFFFF)
    if infinity != INFINITY_NONE and (value == highest or value == ~highest):
        return INFINITY_NULL if infinity == INFINITY_NULL else INFINITE
    return OUT_OF_RANGE


@inline
def boolean(
    wire: Bytes,
    last: Int,
    cursors: Uint32s,
    first: Int,
    count: Int,
    column: Int64s,
    arena: Bytes,
    tile: Int64s,
    failure: Int64s,
) -> Int:
    """Decode one-byte booleans into a bitmap that starts out zero."""
    values = u64(column[VALUES_AT] * 8 + first)
    bits = u64(column[VALIDITY_AT] * 8 + first)
    delta = u64(tile[DELTA])
    nulls = 0
    top = u64(0)
    for row in range(count):
        cursor = u64(cursors[row]) + delta
        if cursor > last and cursor != ABSENT:
            return fail(failure, BEYOND_BLOCK, row, cursor)
        length = be32(wire, cursor) if cursor <= last else i64(-1)
        if length == 1:
            value = u64(wire[cursor + u64(4)])
            if value > u64(1):
                return fail(failure, BAD_BOOL, row, cursor)
            bit = values + u64(row)
            arena[bit >> u64(3)] |= value << (bit & u64(7))
        elif length == -1:
            clear_bit(arena, bits + u64(row))
            nulls += 1
        else:
            return fail(failure, BAD_LENGTH, row, cursor)
        top = move_cursor(cursors, row, cursor, length, top)
    tile[DELTA] = 0
    tile[TOP] = i64(top)
    return nulls


@inline
def sixteen(
    wire: Bytes,
    last: Int,
    cursors: Uint32s,
    first: Int,
    count: Int,
    column: Int64s,
    arena: Bytes,
    words: Int64s,
    tile: Int64s,
    failure: Int64s,
) -> Int:
    """Copy values of exactly 16 bytes."""
    at = u64(column[VALUES_AT] + 16 * first)
    bits = u64(column[VALIDITY_AT] * 8 + first)
    delta = u64(tile[DELTA])
    nulls = 0
    top = u64(0)
    for row in range(count):
        cursor = u64(cursors[row]) + delta
        if cursor > last and cursor != ABSENT:
            return fail(failure, BEYOND_BLOCK, row, cursor)
        length = be32(wire, cursor) if cursor <= last else i64(-1)
        target = at + u64(16 * row)
        if length == 16:
            copy16(arena, target, wire, cursor + u64(4))
        elif length == -1:
            words[target >> u64(3)] = 0
            words[(target >> u64(3)) + u64(1)] = 0
            clear_bit(arena, bits + u64(row))
            nulls += 1
        else:
            return fail(failure, BAD_LENGTH, row, cursor)
        top = move_cursor(cursors, row, cursor, length, top)
    tile[DELTA] = 0
    tile[TOP] = i64(top)
    return nulls


@inline
def interval(
    wire: Bytes,
    last: Int,
    cursors: Uint32s,
    first: Int,
    count: Int,
    column: Int64s,
    arena: Arena,
    tile: Int64s,
    failure: Int64s,
) -> Int:
    """Decode (us, days, months) into month_day_nano; microseconds beyond int64 nanoseconds are an error."""
    validity, _, halves, words = arena
    at = u64(column[VALUES_AT] // 8 + first * 2)
    bits = u64(column[VALIDITY_AT] * 8 + first)
    delta = u64(tile[DELTA])
    nulls = 0
    top = u64(0)
    for row in range(count):
        cursor = u64(cursors[row]) + delta
        if cursor > last and cursor != ABSENT:
            return fail(failure, BEYOND_BLOCK, row, cursor)
        length = be32(wire, cursor) if cursor <= last else i64(-1)
        word = at + u64(2 * row)
        valid = length == 16
        if valid:
            micros = be64(wire, cursor + u64(4))
            days = be32(wire, cursor + u64(12))
            months = be32(wire, cursor + u64(16))
            if is_infinite(micros, days, months):
                if column[INFINITY] != INFINITY_NULL:
                    return fail(failure, INFINITE, row, cursor)
                valid = False
            elif micros < column[LOW] or micros > column[HIGH]:
                return fail(failure, OUT_OF_RANGE, row, cursor)
            else:
                halves[word * u64(2)] = i32(months)
                halves[word * u64(2) + u64(1)] = i32(days)
                words[word + u64(1)] = micros * 1000
        elif length != -1:
            return fail(failure, BAD_LENGTH, row, cursor)
        if not valid:
            words[word] = 0
            words[word + u64(1)] = 0
            clear_bit(validity, bits + u64(row))
            nulls += 1
        top = move_cursor(cursors, row, cursor, length, top)
    tile[DELTA] = 0
    tile[TOP] = i64(top)
    return nulls


@inline
def is_infinite(micros: Int, days: Int, months: Int) -> Any:
    """Tell an infinite interval (PostgreSQL 17 and later): all three fields at the same end of their range."""
    top = micros == i64(0x7FFFFFFFFFFFFFFF) and days == 0x7FFFFFFF and months == 0x7FFFFFFF
    bottom = micros == ~i64(0x7FFFFFFFFFFFFFFF) and days == -0x80000000 and months == -0x80000000
    return bool(top or bottom)
