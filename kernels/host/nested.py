"""Decode the parts that a survey has found: validity, offsets and values of every node of nested columns."""

from __future__ import annotations

import numpy as np

from kernels.host._jit import inline, njit
from kernels.host.decode import decode_tile, gather_column, padded
from kernels.host.field import ABSENT, clear_bit, fail
from kernels.host.memory import be32
from kernels.host.survey import length_at
from kernels.layout import (
    ARRAY,
    BARE,
    BOOL,
    COLUMN,
    DATA_AT,
    DATA_BYTES,
    DELTA,
    ELEMENTS,
    HEADS,
    LIST,
    MAP,
    MULTIRANGE,
    NOT_UTF8,
    NULLS,
    PLACES,
    RANGE,
    ROW,
    SHAPE,
    STRUCT,
    TILE_ROWS,
    TOP,
    VALIDITY_AT,
    VALUES_AT,
    VARLEN,
    WIDTH,
)
from kernels.primitives import Bytes, Int, i32, u64
from kernels.typing import Arena, Int64s, Uint32s


@njit
def decode_parts(
    wire: Bytes,
    end: Int,
    nodes: Int64s,
    places: Uint32s,
    offsets: Uint32s,
    counts: Int64s,
    arena: Arena,
    data_at: Int,
    cursors: Uint32s,
    tile: Int64s,
    results: Int64s,
    failure: Int64s,
) -> Int:
    """Decode every node that has places into the arena of the block's batch, after `decode`.

    Parameters
    ----------
    wire, end, arena, cursors, tile
        As for `decode`.
    nodes : int64 array, nodes x DESCRIPTOR_WIDTH
        The descriptor table with the arena offsets for `counts` filled in.
    places, offsets, counts
        From `survey`; the places of VARLEN nodes are spoilt.
    data_at : int
        Where data may begin, behind that of the columns.
    results : int64 array, nodes x RESULT_WIDTH
    failure : int64 array
        The failure record; ROW counts the values of the node COLUMN.

    Returns
    -------
    int
        0, or -1 with `failure` filled.
    """
    bytes8, _, bytes32, bytes64 = arena
    for node in range(nodes.shape[0]):
        column = nodes[node]
        slot = column[PLACES]
        if slot < 0:
            continue
        count = counts[node]
        where = places[slot]
        result = results[node]
        failure[COLUMN] = node
        prepare(bytes8, bytes32, column, count, result)
        shape = column[SHAPE]
        if shape in (LIST, STRUCT, RANGE, MULTIRANGE, MAP, BARE, ARRAY, HEADS, ELEMENTS):
            result[NULLS] = outline(wire, where, offsets[slot], count, column, bytes8, bytes32)
            continue
        if decode_leaf(wire, end, column, where, count, arena, cursors, tile, result, failure) < 0:
            return -1
        if shape == VARLEN:
            row = gather_column(wire, count, column, bytes8, bytes32, bytes64, data_at, where, result)
            if row >= 0:
                return fail(failure, NOT_UTF8, row, u64(where[u64(row)]))
            data_at += padded(result[DATA_BYTES])
    return 0


@inline
def prepare(bytes8: Bytes, bytes32: Int64s, column: Int64s, count: Int, result: Int64s) -> None:
    """All valid, all false, all empty."""
    bitmap = (count + 7) // 8
    result[NULLS] = 0
    result[DATA_AT] = 0
    result[DATA_BYTES] = 0
    bytes8[column[VALIDITY_AT] : column[VALIDITY_AT] + bitmap] = 0xFF
    if column[SHAPE] == BOOL:
        bytes8[column[VALUES_AT] : column[VALUES_AT] + bitmap] = 0
    elif column[SHAPE] == VARLEN:
        bytes32[column[VALUES_AT] // 4] = 0


@inline
def outline(
    wire: Bytes, places: Uint32s, offsets: Uint32s, count: Int, column: Int64s, bytes8: Bytes, bytes32: Int64s
) -> Int:
    """Write the validity of a node with children (or a BARE one), and its offsets; return the number of NULLs."""
    bits = u64(column[VALIDITY_AT] * 8)
    shape = column[SHAPE]
    nulls = 0
    for index in range(count):
        place = u64(places[index])
        absent = place == ABSENT if shape == BARE else length_at(wire, place) == -1
        if absent:
            clear_bit(bytes8, bits + u64(index))
            nulls += 1
        if shape == BARE and column[WIDTH] == 1:
            bytes8[column[VALUES_AT] + index] = 0 if absent else wire[place]
        elif shape == BARE:
            bytes32[column[VALUES_AT] // 4 + index] = i32(0 if absent else be32(wire, place))
    if shape in (LIST, MULTIRANGE, MAP, HEADS, ELEMENTS):
        at = column[VALUES_AT] // 4
        for index in range(count + 1):
            bytes32[at + index] = offsets[index]
    return nulls


@inline
def decode_leaf(
    wire: Bytes,
    end: Int,
    column: Int64s,
    places: Uint32s,
    count: Int,
    arena: Arena,
    cursors: Uint32s,
    tile: Int64s,
    result: Int64s,
    failure: Int64s,
) -> Int:
    """Decode a node without children, tile by tile; return 0, or -1."""
    last = u64(end - 4)
    for first in range(0, count, TILE_ROWS):
        size = min(TILE_ROWS, count - first)
        top = u64(0)
        for row in range(size):
            place = u64(places[u64(first + row)])
            cursors[row] = place
            top = max(top, place)
        tile[DELTA] = 0
        tile[TOP] = np.int64(top)
        nulls = decode_tile(
            wire, last, u64(end), cursors, first, size, column, places, arena, tile, result, failure
        )
        if nulls < 0:
            failure[ROW] += first
            return -1
        result[NULLS] += nulls
    return 0
