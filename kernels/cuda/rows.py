"""Decode the rows of a block: one thread a row, column by column; then sums, then the data of the VARLEN columns.

Every field is proven to lie inside its row before a byte of it is read.
"""

from __future__ import annotations

import numpy as np

from kernels import layout
from kernels.cuda._cuda import barrier, cuda, device, kernel
from kernels.cuda.field import IS_NULL, clear_bitmaps, put_null, record
from kernels.cuda.fixed import boolean, fixed, interval, sixteen
from kernels.cuda.geometry import MAX_THREADS
from kernels.cuda.load import be32
from kernels.cuda.numeric import numeric
from kernels.cuda.segments import END, START
from kernels.cuda.table import (
    DATA_AT,
    DESCRIPTOR_WIDTH,
    FAILURE,
    NO_FAILURE,
    RESULT_WIDTH,
    RESULTS,
    SHAPE,
)
from kernels.cuda.varlen import gather, measure, place_data, sum_column
from kernels.cuda.vector import nth_vector, swap_numbers, vector
from kernels.primitives import Int, i64, u64
from kernels.typing import DeviceArena, DeviceArray


@device
def decode_row(
    row: Int,
    words: DeviceArray,
    bounds: DeviceArray,
    columns: Int,
    table: Int,
    state: DeviceArray,
    arena: DeviceArena,
    sources: DeviceArray,
) -> None:
    """Decode one row; a failure leaves its offset in place of the row's start."""
    at = u64(bounds[START, u64(row)]) + u64(2)
    end = u64(bounds[END, u64(row)])
    code = i64(layout.OK)
    index = i64(0)
    while index < columns:
        column = table + u64(index) * DESCRIPTOR_WIDTH
        if at + u64(4) > end:
            code = i64(layout.ROW_MISMATCH)
            break
        length = be32(words, at)
        if length >= 0:
            if at + u64(4) + u64(length) > end:
                code = i64(layout.ROW_MISMATCH)
                break
            code = i64(decode_field(words, at + u64(4), length, row, column, state, arena, sources))
        else:
            code = i64(IS_NULL) if length == -1 else i64(layout.BAD_LENGTH)
        if code == IS_NULL:
            put_null(row, column, state, arena, sources)
        elif code != layout.OK:
            break
        code = i64(layout.OK)
        at += u64(4) + u64(max(length, i64(0)))
        index += 1
    if code == layout.OK and at != end:
        code = i64(layout.ROW_MISMATCH)
        index = columns - 1
        at = end
    if code != layout.OK:
        bounds[START, u64(row)] = at
        record(state, FAILURE, row, max(index, i64(0)), code)


@device
def decode_field(
    words: DeviceArray,
    at: Int,
    length: Int,
    row: Int,
    column: Int,
    state: DeviceArray,
    arena: DeviceArena,
    sources: DeviceArray,
) -> Int:
    """Decode a value that lies in its row; return OK, IS_NULL or a failure code."""
    shape = state[column + SHAPE]
    if shape == layout.FIXED:
        return fixed(words, at, length, row, column, state, arena)
    if shape == layout.VARLEN:
        return measure(words, at, length, row, column, state, arena, sources)
    if shape == layout.NUMERIC:
        return numeric(words, at, length, row, column, state, arena)
    if shape == layout.BOOL:
        return boolean(words, at, length, row, column, state, arena)
    if shape == layout.BYTES:
        return sixteen(words, at, length, row, column, state, arena)
    if shape == layout.INTERVAL:
        return interval(words, at, length, row, column, state, arena)
    if shape == layout.VECTOR:
        return vector(words, at, length, row, column, state, sources)
    return layout.OK  # a nested field, whose parts are looked into by themselves


@kernel
def rows_kernel(
    words: DeviceArray,
    bounds: DeviceArray,
    rows: Int,
    tile_rows: Int,
    columns: Int,
    state: DeviceArray,
    longs: DeviceArray,
    sources: DeviceArray,
) -> None:
    """One block per tile of rows (a multiple of 32, so that no other block touches its bits)."""
    table = RESULTS + u64(columns) * RESULT_WIDTH
    arena = (longs.view(np.uint32), longs.view(np.int16), longs.view(np.int32), longs)
    first = cuda.blockIdx.x * tile_rows
    last = min(first + tile_rows, rows)
    for word in range((first >> 5) + cuda.threadIdx.x, (last + 31) >> 5, cuda.blockDim.x):
        for index in range(columns):
            clear_bitmaps(word, table + u64(index) * DESCRIPTOR_WIDTH, state, arena[0])
    barrier()
    for row in range(first + cuda.threadIdx.x, last, cuda.blockDim.x):
        decode_row(row, words, bounds, columns, table, state, arena, sources)


@kernel
def sums_kernel(columns: Int, state: DeviceArray, longs: DeviceArray) -> None:
    """One block per column."""
    sums = cuda.shared.array(MAX_THREADS, i64)
    if state[FAILURE] != NO_FAILURE:
        return  # lengths are not known
    arena = (longs.view(np.uint32), longs.view(np.int16), longs.view(np.int32), longs)
    index = cuda.blockIdx.x
    column = RESULTS + u64(columns) * RESULT_WIDTH + u64(index) * DESCRIPTOR_WIDTH
    sum_column(cuda.threadIdx.x, cuda.blockDim.x, index, column, state, arena, sums)


@kernel
def gather_kernel(
    words: DeviceArray,
    data_at: Int,
    columns: Int,
    state: DeviceArray,
    longs: DeviceArray,
    sources: DeviceArray,
) -> None:
    """Some blocks per VARLEN column, whose sources are known."""
    if state[FAILURE] != NO_FAILURE:
        return
    arena = (longs.view(np.uint32), longs.view(np.int16), longs.view(np.int32), longs)
    table = RESULTS + u64(columns) * RESULT_WIDTH
    index, at = place_data(cuda.blockIdx.y, columns, data_at, table, state)
    chunk = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    chunks = cuda.gridDim.x * cuda.blockDim.x
    if chunk == 0:
        state[RESULTS + u64(index) * RESULT_WIDTH + DATA_AT] = i64(at)
    column = table + u64(index) * DESCRIPTOR_WIDTH
    gather(chunk, chunks, words, index, column, i64(at), state, arena, sources)


@kernel
def vectors_kernel(
    words: DeviceArray, columns: Int, state: DeviceArray, longs: DeviceArray, sources: DeviceArray
) -> None:
    """Some blocks per VECTOR column, whose sources are known."""
    if state[FAILURE] != NO_FAILURE:
        return
    column = nth_vector(cuda.blockIdx.y, columns, RESULTS + u64(columns) * RESULT_WIDTH, state)
    thread = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    threads = cuda.gridDim.x * cuda.blockDim.x
    arena = (longs.view(np.uint32), longs.view(np.int16), longs.view(np.int32), longs)
    swap_numbers(thread, threads, words, column, state, arena, sources)
