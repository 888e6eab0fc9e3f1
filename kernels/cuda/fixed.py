"""Put values of fixed width into the arena: one field of one row."""

from __future__ import annotations

import numpy as np

from kernels import layout
from kernels.cuda._cuda import device
from kernels.cuda.field import IS_NULL, set_bit
from kernels.cuda.load import be32, be64, byte, window
from kernels.cuda.table import BIAS, HIGH, INFINITY, LOW, VALUES_AT, WIDTH
from kernels.primitives import Int, i32, i64, u64
from kernels.typing import DeviceArena, DeviceArray


@device
def fixed(
    words: DeviceArray, at: Int, length: Int, row: Int, column: Int, state: DeviceArray, arena: DeviceArena
) -> Int:
    """Put a big-endian number; return OK, IS_NULL or a failure code."""
    _, halves, ints, longs = arena
    width = state[column + WIDTH]
    if length != width:
        return layout.BAD_LENGTH
    value = be64(words, at) >> (i64(64) - i64(8) * width)
    if value < state[column + LOW] or value > state[column + HIGH]:
        return out_of_range(value, width, state[column + INFINITY])
    value += state[column + BIAS]
    target = u64(state[column + VALUES_AT])
    if width == 4:
        ints[(target >> u64(2)) + u64(row)] = i32(value)
    elif width == 8:
        longs[(target >> u64(3)) + u64(row)] = value
    else:
        halves[(target >> u64(1)) + u64(row)] = np.int16(value)
    return layout.OK


@device
def out_of_range(value: Int, width: Int, infinity: Int) -> Int:
    """Classify a value that Arrow cannot hold: IS_NULL to make it NULL, else the failure code."""
    highest = i64(0x7FFFFFFFFFFFFFFF) if width == 8 else i64(0x7FFFFFFF)
    if infinity != layout.INFINITY_NONE and value in (highest, ~highest):
        return IS_NULL if infinity == layout.INFINITY_NULL else layout.INFINITE
    return layout.OUT_OF_RANGE


@device
def boolean(
    words: DeviceArray, at: Int, length: Int, row: Int, column: Int, state: DeviceArray, arena: DeviceArena
) -> Int:
    """Put a boolean into a bitmap that starts out zero."""
    if length != 1:
        return layout.BAD_LENGTH
    value = byte(words, at)
    if value > u64(1):
        return layout.BAD_BOOL
    if value == u64(1):
        set_bit(arena[0], u64(state[column + VALUES_AT]) * u64(8) + u64(row))
    return layout.OK


@device
def sixteen(
    words: DeviceArray, at: Int, length: Int, row: Int, column: Int, state: DeviceArray, arena: DeviceArena
) -> Int:
    """Copy a value of exactly 16 bytes."""
    if length != 16:
        return layout.BAD_LENGTH
    longs = arena[3]
    target = (u64(state[column + VALUES_AT]) >> u64(3)) + u64(2 * row)
    longs[target] = i64(window(words, at))
    longs[target + u64(1)] = i64(window(words, at + u64(8)))
    return layout.OK


@device
def interval(
    words: DeviceArray, at: Int, length: Int, row: Int, column: Int, state: DeviceArray, arena: DeviceArena
) -> Int:
    """Put (us, days, months) as month_day_nano; microseconds beyond int64 nanoseconds are an error."""
    _, _, ints, longs = arena
    if length != 16:
        return layout.BAD_LENGTH
    micros = be64(words, at)
    days = be32(words, at + u64(8))
    months = be32(words, at + u64(12))
    if is_infinite(micros, days, months):
        return IS_NULL if state[column + INFINITY] == layout.INFINITY_NULL else layout.INFINITE
    if micros < state[column + LOW] or micros > state[column + HIGH]:
        return layout.OUT_OF_RANGE
    target = (u64(state[column + VALUES_AT]) >> u64(3)) + u64(2 * row)
    ints[target * u64(2)] = i32(months)
    ints[target * u64(2) + u64(1)] = i32(days)
    longs[target + u64(1)] = micros * i64(1000)
    return layout.OK


@device
def is_infinite(micros: Int, days: Int, months: Int) -> bool:
    """Tell an infinite interval (PostgreSQL 17 and later): all three fields at the same end of their range."""
    top = micros == i64(0x7FFFFFFFFFFFFFFF) and days == 0x7FFFFFFF and months == 0x7FFFFFFF
    bottom = micros == ~i64(0x7FFFFFFFFFFFFFFF) and days == -0x80000000 and months == -0x80000000
    return bool(top or bottom)
