"""Nested columns: kernels that find the parts of their values level by level, and then decode every part."""

from __future__ import annotations

import numpy as np

from kernels import layout
from kernels.cuda._cuda import barrier, cuda, device, kernel
from kernels.cuda.field import IS_NULL, clear_bit, clear_bitmaps, put_null, record, record_part
from kernels.cuda.geometry import MAX_THREADS
from kernels.cuda.load import be32, byte
from kernels.cuda.rows import decode_field
from kernels.cuda.segments import END, START
from kernels.cuda.survey import ABSENT, length_at, locate_row, look_into
from kernels.cuda.table import (
    CHILD,
    DATA_BYTES,
    DESCRIPTOR_WIDTH,
    FAILURE,
    ITEMS,
    NO_FAILURE,
    OFFSETS,
    PLACES,
    RESULT_WIDTH,
    RESULTS,
    ROW_FAILURE,
    SHAPE,
    VALIDITY_AT,
    VALUES_AT,
    WIDTH,
)
from kernels.cuda.varlen import add_up
from kernels.plan import LISTS
from kernels.primitives import Int, i64, u64
from kernels.typing import DeviceArena, DeviceArray


@device
def is_list(shape: Int) -> bool:
    """Tell a node with offsets and any number of parts."""
    return bool(shape in LISTS)


@device
def note_row(
    row: Int,
    words: DeviceArray,
    bounds: DeviceArray,
    columns: Int,
    slots: Int,
    state: DeviceArray,
    places: DeviceArray,
) -> None:
    """Locate the nested fields of one row; a failure leaves its offset in place of the row's start."""
    begin = u64(bounds[START, u64(row)]) + u64(2)
    end = u64(bounds[END, u64(row)])
    code, column, at = locate_row(row, words, begin, end, columns, slots, state, places)
    if code != layout.OK:
        bounds[START, u64(row)] = at
        record(state, ROW_FAILURE, row, column, code)


@device
def note_parts(
    item: Int,
    words: DeviceArray,
    slot: Int,
    column: Int,
    table: Int,
    state: DeviceArray,
    places: DeviceArray,
    storing: Int,
) -> None:
    """Count the parts of one value, or note their places; a failure leaves its offset in place of the value's."""
    code, at, parts = look_into(item, words, column, table, state, places, storing)
    if code != layout.OK:
        places[u64(state[column + PLACES]) + u64(item)] = at
        record_part(state, slot, item, code)
    elif storing == 0 and is_list(state[column + SHAPE]):
        places[u64(state[column + OFFSETS]) + u64(item + 1)] = u64(parts)


@device
def decode_part(
    item: Int,
    words: DeviceArray,
    slot: Int,
    column: Int,
    state: DeviceArray,
    arena: DeviceArena,
    octets: DeviceArray,
    places: DeviceArray,
) -> None:
    """Decode one value of one node: a leaf as a column's, else its validity and where its parts end."""
    place = u64(places[u64(state[column + PLACES]) + u64(item)])
    shape = state[column + SHAPE]
    values = u64(state[column + VALUES_AT])
    if shape == layout.BARE:
        if state[column + WIDTH] == 1:
            octets[values + u64(item)] = np.uint8(u64(0) if place == ABSENT else byte(words, place))
        else:
            arena[2][(values >> u64(2)) + u64(item)] = np.int32(i64(0) if place == ABSENT else be32(words, place))
        length = i64(-1) if place == ABSENT else i64(0)
    else:
        length = length_at(words, place)
    if is_list(shape):
        end = u64(places[u64(state[column + OFFSETS]) + u64(item + 1)])
        arena[2][(values >> u64(2)) + u64(item + 1)] = np.int32(end)
    if shape == layout.BARE or state[column + CHILD] >= 0:
        if length == -1:
            clear_bit(arena[0], u64(state[column + VALIDITY_AT]) * u64(8) + u64(item))
        return
    code = i64(IS_NULL)
    if length >= 0:
        code = i64(decode_field(words, place + u64(4), length, item, column, state, arena, places))
    elif length != -1:
        code = i64(layout.BAD_LENGTH)
    if code == IS_NULL:
        put_null(item, column, state, arena, places)
    elif code != layout.OK:
        record_part(state, slot, item, code)


@kernel
def locate_kernel(
    words: DeviceArray,
    bounds: DeviceArray,
    rows: Int,
    columns: Int,
    slots: Int,
    state: DeviceArray,
    places: DeviceArray,
) -> None:
    """One thread a row; `slots` is where `state` says for each column where its places begin, or -1."""
    for row in range(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x, rows, cuda.gridDim.x * cuda.blockDim.x):
        note_row(row, words, bounds, columns, u64(slots), state, places)


@kernel
def survey_kernel(
    words: DeviceArray, first: Int, nodes: Int, storing: Int, state: DeviceArray, places: DeviceArray
) -> None:
    """Some blocks per node of a level, the first of which is `first`; one thread a value."""
    table = RESULTS + u64(nodes) * RESULT_WIDTH
    slot = first + cuda.blockIdx.y
    column = table + u64(slot) * DESCRIPTOR_WIDTH
    # A failure of an earlier level, or of a row: the places are not to be trusted.
    if state[ROW_FAILURE] != NO_FAILURE or state[FAILURE] >> i64(40) < first or state[column + CHILD] < 0:
        return
    count = state[column + ITEMS]
    thread = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    for item in range(thread, count, cuda.gridDim.x * cuda.blockDim.x):
        note_parts(item, words, slot, column, table, state, places, storing)


@kernel
def offsets_kernel(first: Int, nodes: Int, state: DeviceArray, places: DeviceArray) -> None:
    """One block per node of a level: counts become offsets; how many parts there are is left as DATA_BYTES."""
    sums = cuda.shared.array(MAX_THREADS, i64)
    slot = first + cuda.blockIdx.x
    column = RESULTS + u64(nodes) * RESULT_WIDTH + u64(slot) * DESCRIPTOR_WIDTH
    if state[ROW_FAILURE] != NO_FAILURE or state[FAILURE] != NO_FAILURE or not is_list(state[column + SHAPE]):
        return
    offsets = u64(state[column + OFFSETS])
    total = add_up(cuda.threadIdx.x, cuda.blockDim.x, places, offsets, state[column + ITEMS], sums)
    if cuda.threadIdx.x == 0:
        state[RESULTS + u64(slot) * RESULT_WIDTH + DATA_BYTES] = total


@kernel
def parts_kernel(
    words: DeviceArray, nodes: Int, tile_items: Int, state: DeviceArray, longs: DeviceArray, places: DeviceArray
) -> None:
    """Some blocks per node, each for tiles of values (a multiple of 32: no other block touches its bits)."""
    slot = cuda.blockIdx.y
    column = RESULTS + u64(nodes) * RESULT_WIDTH + u64(slot) * DESCRIPTOR_WIDTH
    arena = (longs.view(np.uint32), longs.view(np.int16), longs.view(np.int32), longs)
    octets = longs.view(np.uint8)
    count = state[column + ITEMS]
    if cuda.blockIdx.x == 0 and cuda.threadIdx.x == 0 and is_list(state[column + SHAPE]):
        arena[2][u64(state[column + VALUES_AT]) >> u64(2)] = np.int32(0)
    for tile in range(cuda.blockIdx.x, (count + tile_items - 1) // tile_items, cuda.gridDim.x):
        first = tile * tile_items
        last = min(first + tile_items, count)
        for word in range((first >> 5) + cuda.threadIdx.x, (last + 31) >> 5, cuda.blockDim.x):
            clear_bitmaps(word, column, state, arena[0])
        barrier()
        for item in range(first + cuda.threadIdx.x, last, cuda.blockDim.x):
            decode_part(item, words, slot, column, state, arena, octets, places)
