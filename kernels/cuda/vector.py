"""pgvector's vectors of a declared dimension: headers row by row, then all numbers into one contiguous matrix."""

from __future__ import annotations

import numpy as np

from kernels import layout
from kernels.cuda._cuda import device
from kernels.cuda.load import be16, be32
from kernels.cuda.table import DESCRIPTOR_WIDTH, ITEMS, SCALE, SHAPE, SOURCE, VALUES_AT, WIDTH
from kernels.primitives import Int, i32, i64, u64
from kernels.typing import DeviceArena, DeviceArray

WARP = 32
"""Threads that share a vector at most: what they read and write together lies side by side."""


@device
def vector(
    words: DeviceArray, at: Int, length: Int, row: Int, column: Int, state: DeviceArray, sources: DeviceArray
) -> Int:
    """Prove a vector's dimension and note where its numbers are; return OK or a failure code."""
    width = state[column + WIDTH]
    if length < 4:
        return layout.BAD_LENGTH
    head = be32(words, at)  # dimension, and zero
    if (head >> i64(16)) * state[column + SCALE] != width or length != i64(4) + width or head & i64(0xFFFF) != 0:
        return layout.OTHER_DIMENSION
    sources[u64(state[column + SOURCE]) + u64(row)] = at + u64(4)
    return layout.OK


@device
def nth_vector(number: Int, columns: Int, table: Int, state: DeviceArray) -> Int:
    """Return where the descriptor of the VECTOR column of that number is."""
    before = i64(number)
    for index in range(columns):
        column = table + u64(index) * DESCRIPTOR_WIDTH
        if state[column + SHAPE] == layout.VECTOR:
            if before == 0:
                return column
            before -= i64(1)
    return table


@device
def swap_numbers(
    thread: Int,
    threads: Int,
    words: DeviceArray,
    column: Int,
    state: DeviceArray,
    arena: DeviceArena,
    sources: DeviceArray,
) -> None:
    """Put every number of a column that is this thread's; those of a NULL are zero."""
    _, halves, ints, _ = arena
    size = state[column + SCALE]
    numbers = state[column + WIDTH] // size
    target = u64(state[column + VALUES_AT]) // u64(size)
    first_source = u64(state[column + SOURCE])
    lanes = i64(1)
    while lanes < WARP and lanes < numbers and lanes + lanes <= threads:
        lanes += lanes
    teams = i64(threads) // lanes
    lane = i64(thread) % lanes
    for row in range(i64(thread) // lanes, state[column + ITEMS], teams):
        source = u64(sources[first_source + u64(row)])
        place = target + u64(row * numbers)
        for number in range(lane if thread < teams * lanes else numbers, numbers, lanes):
            value = i64(0)
            if source != u64(layout.ABSENT):
                value = number_at(words, source + u64(number * size), size)
            if size == 4:
                ints[place + u64(number)] = i32(value)
            else:
                halves[place + u64(number)] = np.int16(value)


@device
def number_at(words: DeviceArray, at: Int, size: Int) -> Int:
    """Load the bits of a number of 4 or 2 bytes."""
    return be32(words, at) if size == 4 else be16(words, at)
