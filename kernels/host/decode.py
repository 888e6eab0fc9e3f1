"""Decode the rows of a block: tiles of rows, column by column, one cursor per row."""

from __future__ import annotations

import numpy as np

from kernels.host._jit import inline, njit
from kernels.host.field import fail, move_cursor
from kernels.host.fixed import boolean, fixed, interval, sixteen
from kernels.host.memory import be32
from kernels.host.numeric import numeric
from kernels.host.utf8 import first_invalid, is_ascii
from kernels.host.varlen import gather, measure
from kernels.host.vector import vector
from kernels.layout import (
    BEYOND_BLOCK,
    BOOL,
    BUFFER_ALIGN_BYTES,
    BYTES,
    COLUMN,
    DATA_AT,
    DATA_BYTES,
    DELTA,
    FIXED,
    NOT_UTF8,
    NULLS,
    NUMERIC,
    PLACES,
    ROW,
    ROW_MISMATCH,
    SHAPE,
    SOURCE,
    TILE_ROWS,
    TOP,
    UTF8,
    VALIDITY_AT,
    VALUES_AT,
    VARLEN,
    VECTOR,
    WIDTH,
)
from kernels.primitives import Bytes, Int, u64
from kernels.typing import Arena, Int64s, Uint32s


@njit
def decode(
    wire: Bytes,
    end: Int,
    starts: Uint32s,
    ends: Uint32s,
    rows: Int,
    columns: Int64s,
    arena: Arena,
    data_at: Int,
    cursors: Uint32s,
    tile: Int64s,
    sources: Uint32s,
    results: Int64s,
    failure: Int64s,
) -> Int:
    """Decode `rows` rows of a block into one arena of Arrow buffers.

    A row's cursor only grows, and after the last column it must stand exactly at the row's end: so every field
    lay inside its row.  Until that is proven only the block's end bounds the reads.

    Parameters
    ----------
    wire : uint8 array
        The block, with WIRE_PAD_BYTES readable behind `end`.
    end : int
        Bytes of the block that hold whole rows.
    starts, ends : uint32 arrays
        Offsets of each row's field count and of its end, from `scan`.
    rows : int
        Rows to decode.
    columns : int64 array, columns x DESCRIPTOR_WIDTH
        The plan's descriptor table with the arena offsets for this many rows filled in.
    arena : tuple of uint8, int16, int32, int64 arrays
        One region, seen four ways.
    data_at : int
        Where the data of the VARLEN columns may begin (64-byte aligned).
    cursors : uint32 array of TILE_ROWS
    tile : int64 array of TILE_WIDTH
    sources : uint32 array, VARLEN columns x at least `rows`
    results : int64 array, columns x RESULT_WIDTH
        Receives null counts and the place of VARLEN data.
    failure : int64 array
        The failure record; ROW counts from the first of these rows.

    Returns
    -------
    int
        0, or -1 with `failure` filled.
    """
    bytes8, _, bytes32, bytes64 = arena
    count_of_columns = columns.shape[0]
    last = u64(end - 4)
    clear(bytes8, bytes32, columns, rows, results)
    for first in range(0, rows, TILE_ROWS):
        count = min(TILE_ROWS, rows - first)
        for row in range(count):
            cursors[row] = starts[u64(first + row)] + u64(2)
        tile[DELTA] = 0
        tile[TOP] = np.int64(cursors[count - 1])
        for index in range(count_of_columns):
            column = columns[index]
            if column[PLACES] >= 0:
                nulls = skip(wire, last, u64(end), cursors, count, tile, failure)
            else:
                source = sources[max(column[SOURCE], 0)]
                nulls = decode_tile(
                    wire,
                    last,
                    u64(end),
                    cursors,
                    first,
                    count,
                    column,
                    source,
                    arena,
                    tile,
                    results[index],
                    failure,
                )
            if nulls < 0:
                failure[ROW] += first
                failure[COLUMN] = index
                return -1
            results[index, NULLS] += nulls
        for row in range(count):
            if u64(cursors[row]) + u64(tile[DELTA]) != ends[u64(first + row)]:
                failure[COLUMN] = count_of_columns - 1
                return fail(failure, ROW_MISMATCH, first + row, u64(ends[u64(first + row)]))
    data_end = gather_all(wire, rows, columns, bytes8, bytes32, bytes64, data_at, sources, results, failure)
    return min(data_end, 0)


@inline
def decode_tile(
    wire: Bytes,
    last: Int,
    end: Int,
    cursors: Uint32s,
    first: Int,
    count: Int,
    column: Int64s,
    source: Uint32s,
    arena: Arena,
    tile: Int64s,
    result: Int64s,
    failure: Int64s,
) -> Int:
    """Decode a tile of a column that is not nested; return the number of NULLs, or -1."""
    bytes8, bytes16, bytes32, bytes64 = arena
    shape = column[SHAPE]
    if shape == FIXED:
        if column[WIDTH] == 4:
            return fixed(bytes32, wire, last, cursors, first, count, column, bytes8, tile, failure)
        if column[WIDTH] == 8:
            return fixed(bytes64, wire, last, cursors, first, count, column, bytes8, tile, failure)
        return fixed(bytes16, wire, last, cursors, first, count, column, bytes8, tile, failure)
    if shape == VARLEN:
        nulls, result[DATA_BYTES] = measure(
            wire,
            last,
            end,
            cursors,
            first,
            count,
            result[DATA_BYTES],
            column,
            bytes8,
            bytes32,
            source,
            tile,
            failure,
        )
        return nulls
    if shape == NUMERIC:
        return numeric(wire, last, end, cursors, first, count, column, bytes8, bytes64, tile, failure)
    if shape == BOOL:
        return boolean(wire, last, cursors, first, count, column, bytes8, tile, failure)
    if shape == BYTES:
        return sixteen(wire, last, cursors, first, count, column, bytes8, bytes64, tile, failure)
    if shape == VECTOR:
        return vector(wire, last, end, cursors, first, count, column, arena, tile, failure)
    return interval(wire, last, cursors, first, count, column, arena, tile, failure)


@inline
def skip(wire: Bytes, last: Int, end: Int, cursors: Uint32s, count: Int, tile: Int64s, failure: Int64s) -> Int:
    """Step over nested fields, whose parts the survey has found; return 0, or -1."""
    delta = u64(tile[DELTA])
    top = u64(0)
    for row in range(count):
        cursor = u64(cursors[row]) + delta
        if cursor > last:
            return fail(failure, BEYOND_BLOCK, row, cursor)
        length = be32(wire, cursor)
        if length < -1 or cursor + u64(4) + u64(max(length, np.int64(0))) > end:
            return fail(failure, BEYOND_BLOCK, row, cursor)
        top = move_cursor(cursors, row, cursor, length, top)
    tile[DELTA] = 0
    tile[TOP] = np.int64(top)
    return 0


@njit
def clear(bytes8: Bytes, bytes32: Int64s, columns: Int64s, rows: Int, results: Int64s) -> None:
    """All valid, all false, all empty: what the kernels then change.  The arena is used again and again."""
    bitmap = (rows + 7) // 8
    for index in range(columns.shape[0]):
        column = columns[index]
        if column[PLACES] >= 0:
            continue
        results[index, NULLS] = 0
        results[index, DATA_AT] = 0
        results[index, DATA_BYTES] = 0
        bytes8[column[VALIDITY_AT] : column[VALIDITY_AT] + bitmap] = 0xFF
        if column[SHAPE] == BOOL:
            bytes8[column[VALUES_AT] : column[VALUES_AT] + bitmap] = 0
        elif column[SHAPE] == VARLEN:
            bytes32[column[VALUES_AT] // 4] = 0


@njit
def gather_all(
    wire: Bytes,
    rows: Int,
    columns: Int64s,
    bytes8: Bytes,
    bytes32: Int64s,
    bytes64: Int64s,
    data_at: Int,
    sources: Uint32s,
    results: Int64s,
    failure: Int64s,
) -> Int:
    """Lay the VARLEN columns' data end to end, and prove text to be UTF-8; return where it ends, or -1."""
    for index in range(columns.shape[0]):
        column = columns[index]
        if column[SHAPE] != VARLEN or column[PLACES] >= 0:
            continue
        source = sources[column[SOURCE]]
        row = gather_column(wire, rows, column, bytes8, bytes32, bytes64, data_at, source, results[index])
        if row >= 0:
            failure[COLUMN] = index
            return fail(failure, NOT_UTF8, row, u64(source[u64(row)]))
        data_at += padded(results[index, DATA_BYTES])
    return data_at


@inline
def padded(size: Int) -> Int:
    """Round up to Arrow's alignment."""
    return (size + BUFFER_ALIGN_BYTES - 1) // BUFFER_ALIGN_BYTES * BUFFER_ALIGN_BYTES


@inline
def gather_column(
    wire: Bytes,
    rows: Int,
    column: Int64s,
    bytes8: Bytes,
    bytes32: Int64s,
    bytes64: Int64s,
    data_at: Int,
    source: Uint32s,
    result: Int64s,
) -> Int:
    """Lay a column's data at `data_at`; return -1, or the first row that is not the UTF-8 it must be."""
    offsets_at = column[VALUES_AT] // 4
    size = result[DATA_BYTES]
    result[DATA_AT] = data_at
    gather(wire, source, bytes32, offsets_at, rows, bytes8, data_at)
    if column[UTF8] == 1 and not is_ascii(bytes64, bytes8, data_at, size):
        return first_invalid(bytes8, data_at, bytes32, offsets_at, rows)
    return -1
