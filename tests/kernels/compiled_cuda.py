"""The CUDA twin's device functions compiled for the CPU, with the host twin's signatures.

The simulator runs Python and infers no types; PTX is compiled but does not run without a device.  Here the same
functions run as compiled code, one thread after the other, at the speed that long fuzz runs need.  Importing this
module puts a stand-in in the place of ``kernels.cuda._cuda``: do it in a process of its own, and first.
"""

from __future__ import annotations

import sys
import types
from typing import Any

import numba
import numpy as np

from kernels.layout import (
    BAD_FIELD_COUNT,
    CODE,
    COLUMN,
    OFFSET,
    RESULT_WIDTH,
    ROW,
    SCAN_FAILED,
    SCAN_FULL,
    VARLEN,
    VECTOR,
)
from kernels.layout import SOURCE as SOURCE_OF

SHIM = "kernels.cuda._cuda"
GATHER_THREADS = 3
SEGMENTS = np.array([8, 24, 64, 256, 1024])


def njit(function: Any) -> Any:
    """Compile for the CPU as the host kernels are."""
    return numba.njit(error_model="numpy")(function)


@njit
def atomic_min(array, index, value):
    array[index] = min(array[index], value)


@njit
def atomic_add(array, index, value):
    array[index] += value


@njit
def atomic_and(array, index, value):
    array[index] &= value


@njit
def atomic_or(array, index, value):
    array[index] |= value


@njit
def barrier():
    return None


@njit
def count_bits(word):
    count = 0
    for bit in range(32):
        count += (np.int64(word) >> bit) & 1
    return count


def stand_in() -> types.ModuleType:
    """Make the module that the device functions see."""
    assert SHIM not in sys.modules, "the real module is in use already"
    module = types.ModuleType(SHIM)
    module.__dict__.update(SIMULATED=True, cuda=None, is_available=lambda: True, array_type=None, number_type=None)
    module.__dict__.update(device=njit, kernel=lambda function: function)
    module.__dict__.update(
        atomic_min=atomic_min, atomic_add=atomic_add, atomic_and=atomic_and, atomic_or=atomic_or,
        barrier=barrier, count_bits=count_bits,
    )  # fmt: skip
    return module


sys.modules[SHIM] = stand_in()

from kernels.cuda import field, table, utf8, varlen, vector  # noqa: E402, F401
from kernels.cuda import rows as by_row  # noqa: E402
from kernels.cuda import segments as by_segment  # noqa: E402


@njit
def scan_once(words, begin, end, kind, header, fields, segment_bytes, bounds, limit, state):
    """Do what the three kernels of a scan do; return (rows, position, stop)."""
    count = max(1, (end - begin + segment_bytes - 1) // segment_bytes)
    segments = np.zeros((table.SEGMENT_WIDTH, count), np.uint32)
    exits, sums = np.zeros(1, np.int64), np.zeros(1, np.int64)
    for segment in range(count):
        by_segment.enter_segment(segment, words, begin, end, kind, header, fields, segment_bytes, segments)
    by_segment.prove_segments(0, 1, begin, count, segments, state, exits, sums)
    for segment in range(count):
        by_segment.emit_rows(segment, words, end, kind, header, fields, limit, segments, bounds, state)
    if state[table.ROWS] >= limit:
        return limit, state[table.LIMIT_POSITION], np.int64(SCAN_FULL)
    return state[table.ROWS], state[table.POSITION], state[table.STOP]


@njit
def scan(wire, begin, end, kind, header, fields, starts, ends, limit, failure):
    """Scan again and again until the host twin would stop; segments are of one of some sizes."""
    words = wire.view(np.uint64)
    segment_bytes = SEGMENTS[end % SEGMENTS.size]
    bounds = np.zeros((2, min(limit, end - begin) + 1), np.uint32)
    state = np.zeros(table.SCAN_WORDS, np.int64)
    rows, position, stop = 0, begin, np.int64(SCAN_FULL)
    while stop == SCAN_FULL and rows < limit:
        before, skip = position, header if rows == 0 else 0
        found, position, stop = scan_once(
            words, before, end, kind, skip, fields, segment_bytes, bounds, limit - rows, state
        )
        assert stop != SCAN_FULL or found > 0
        for row in range(found):
            starts[rows + row], ends[rows + row] = bounds[0, row], bounds[1, row]
        rows += found
    if stop < table.BROKEN:
        return rows, position, stop
    failure[CODE], failure[ROW], failure[OFFSET] = stop - table.BROKEN, rows, position
    if stop - table.BROKEN == BAD_FIELD_COUNT:
        failure[OFFSET] += 5 + (header if position == begin else 0)
    return rows, position, np.int64(SCAN_FAILED)


@njit
def decode(wire, end, starts, ends, rows, columns, arena, data_at, cursors, tile, sources, results, failure):
    """Do what the three kernels of a decode do."""
    words, longs = wire.view(np.uint64), arena[3]
    device_arena = (longs.view(np.uint32), longs.view(np.int16), longs.view(np.int32), longs)
    count, slots = columns.shape[0], sources.shape[1]
    flat = sources.reshape(sources.size)
    state = sheet(columns, rows)
    table_at = np.uint64(np.int64(table.RESULTS) + count * RESULT_WIDTH)
    for index in range(count):
        state[row_at(count, index) + table.SOURCE] = max(columns[index, SOURCE_OF], 0) * slots
    bounds = np.zeros((2, rows), np.uint32)
    bounds[0, :], bounds[1, :] = starts[:rows], ends[:rows]
    for word in range((rows + 31) // 32):
        for index in range(count):
            field.clear_bitmaps(word, row_at(count, index), state, device_arena[0])
    for row in range(rows):
        by_row.decode_row(row, words, bounds, count, table_at, state, device_arena, flat)
    if state[table.FAILURE] != table.NO_FAILURE:
        return refuse(state[table.FAILURE], bounds[0], failure)
    finish(words, data_at, count, state, device_arena, flat)
    take_results(state, results)
    if state[table.TEXT_FAILURE] != table.NO_FAILURE:
        index = (state[table.TEXT_FAILURE] >> 8) & 0xFFFF
        return refuse(state[table.TEXT_FAILURE], sources[columns[index, SOURCE_OF]], failure)
    return 0


@njit
def row_at(count, index):
    """Return where a descriptor is in the sheet of `count` columns."""
    return table.RESULTS + np.uint64(count * RESULT_WIDTH) + np.uint64(index) * table.DESCRIPTOR_WIDTH


@njit
def sheet(columns, rows):
    """Make the array that the kernels share."""
    count, width = columns.shape
    state = np.zeros(np.int64(row_at(count, count)), np.int64)
    for word in (table.FAILURE, table.TEXT_FAILURE, table.ROW_FAILURE):
        state[word] = table.NO_FAILURE
    for index in range(count):
        for place in range(width):
            state[row_at(count, index) + np.uint64(place)] = columns[index, place]
        state[row_at(count, index) + table.ITEMS] = rows
    return state


@njit
def finish(words, data_at, count, state, arena, sources):
    """Do what the last kernels of a decode do."""
    sums = np.zeros(1, np.int64)
    number = 0
    for index in range(count):
        varlen.sum_column(0, 1, index, row_at(count, index), state, arena, sums)
    for index in range(count):
        column = row_at(count, index)
        if state[column + table.SHAPE] == VECTOR:
            for thread in range(GATHER_THREADS):
                vector.swap_numbers(thread, GATHER_THREADS, words, column, state, arena, sources)
        if state[column + table.SHAPE] != VARLEN:
            continue
        found, place = varlen.place_data(number, count, data_at, row_at(count, 0), state)
        assert found == index
        number += 1
        state[table.RESULTS + np.uint64(index) * table.RESULT_WIDTH + table.DATA_AT] = np.int64(place)
        for thread in range(GATHER_THREADS):
            varlen.gather(thread, GATHER_THREADS, words, index, column, np.int64(place), state, arena, sources)


@njit
def take_results(state, results):
    """Copy what was found per column."""
    for index in range(results.shape[0]):
        for place in range(RESULT_WIDTH):
            results[index, place] = state[np.int64(table.RESULTS) + index * RESULT_WIDTH + place]


@njit
def refuse(packed, offsets, failure):
    """Fill the failure record."""
    failure[CODE], failure[ROW], failure[COLUMN] = packed & 0xFF, packed >> 24, (packed >> 8) & 0xFFFF
    failure[OFFSET] = offsets[packed >> 24]
    return -1
