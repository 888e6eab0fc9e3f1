"""The CUDA twin's device functions for nested columns compiled for the CPU, with the host twin's signatures."""

from __future__ import annotations

import numpy as np

from kernels.layout import (
    CHILD,
    CHILDREN,
    CODE,
    COLUMN,
    NOT_UTF8,
    OFFSET,
    PLACES,
    RESULT_WIDTH,
    ROW,
    SHAPE,
    VALUES_AT,
)
from kernels.plan import LISTS
from tests.kernels.compiled_cuda import decode, finish, njit, row_at, scan, sheet, table, take_results

__all__ = ["decode", "decode_parts", "scan", "survey"]

from kernels.cuda import field as by_field
from kernels.cuda import parts as by_part
from kernels.cuda import varlen

CANARY = np.uint32(0xC0FFEE11)
"""Stands behind the places, and the offsets, of each node."""


@njit
def is_list(shape):
    return shape in LISTS


@njit
def slots_of(nodes):
    """Return the nested part of the plan's table: nodes, and rows with children by slot."""
    chosen = np.flatnonzero(nodes[:, PLACES] >= 0)
    rows = nodes[chosen].copy()
    for slot in range(chosen.size):
        if rows[slot, CHILD] >= 0:
            rows[slot, CHILD] = nodes[rows[slot, CHILD], PLACES]
    return chosen, rows


@njit
def lay_out(count, slot, state, used, flat):
    """Find room for a node's places and offsets, with canaries behind them; return how much is used."""
    column = row_at(count, slot)
    items = state[column + table.ITEMS]
    state[column + table.PLACES] = used
    used += items
    flat[used] = CANARY
    used += 1
    if is_list(state[column + table.SHAPE]):
        state[column + table.OFFSETS] = used
        used += items + 1
        flat[used] = CANARY
        used += 1
    return used


@njit
def require_canaries(count, state, flat):
    """End the process where something was written behind a node's own memory."""
    for slot in range(count):
        column = row_at(count, slot)
        items = state[column + table.ITEMS]
        assert flat[state[column + table.PLACES] + items] == CANARY
        if is_list(state[column + table.SHAPE]):
            assert flat[state[column + table.OFFSETS] + items + 1] == CANARY


@njit
def survey(wire, starts, ends, rows, fields, nodes, places, offsets, counts, failure):
    """Do what the kernels of a survey do, level after level being the same as node after node."""
    words = wire.view(np.uint64)
    chosen, blank = slots_of(nodes)
    count = chosen.size
    state = np.concatenate((sheet(blank, 0), np.full(fields, -1, np.int64)))
    slots = row_at(count, count)
    flat = np.zeros(4 * places.size + 4 * count, np.uint32)
    used, number = 0, 0
    counts[:fields] = rows
    for index in range(fields):
        if nodes[index, PLACES] >= 0:
            state[row_at(count, number) + table.ITEMS] = rows
            used = lay_out(count, number, state, used, flat)
            state[slots + np.uint64(index)] = state[row_at(count, number) + table.PLACES]
            number += 1
    bounds = np.zeros((2, rows), np.uint32)
    bounds[0, :], bounds[1, :] = starts[:rows], ends[:rows]
    for row in range(rows):
        by_part.note_row(row, words, bounds, fields, slots, state, flat)
    if state[table.ROW_FAILURE] != table.NO_FAILURE:
        packed = state[table.ROW_FAILURE]
        failure[CODE], failure[ROW], failure[COLUMN] = packed & 0xFF, packed >> 24, (packed >> 8) & 0xFFFF
        failure[OFFSET] = bounds[0, packed >> 24]
        return -1
    sums = np.zeros(1, np.int64)
    for slot in range(count):
        column = row_at(count, slot)
        items, child = state[column + table.ITEMS], state[column + table.CHILD]
        if child >= 0:
            parts = items
            for storing in range(2):
                for item in range(items):
                    by_part.note_parts(item, words, slot, column, row_at(count, 0), state, flat, np.int64(storing))
                if state[table.FAILURE] != table.NO_FAILURE:
                    return refuse(state[table.FAILURE], chosen, count, state, flat, failure)
                if storing == 0:
                    if is_list(blank[slot, SHAPE]):
                        parts = varlen.add_up(0, 1, flat, np.uint64(state[column + table.OFFSETS]), items, sums)
                    for part in range(child, child + blank[slot, CHILDREN]):
                        state[row_at(count, part) + table.ITEMS] = parts
                        used = lay_out(count, part, state, used, flat)
                        counts[chosen[part]] = parts
        for item in range(items):
            places[slot, item] = flat[state[column + table.PLACES] + item]
        if is_list(blank[slot, SHAPE]):
            for item in range(items + 1):
                offsets[slot, item] = flat[state[column + table.OFFSETS] + item]
    require_canaries(count, state, flat)
    return 0


@njit
def refuse(packed, chosen, count, state, flat, failure):
    """Fill the failure record."""
    item, slot = (packed >> 8) & 0xFFFFFFFF, packed >> 40
    failure[CODE], failure[ROW], failure[COLUMN] = packed & 0xFF, item, chosen[slot]
    failure[OFFSET] = flat[state[row_at(count, slot) + table.PLACES] + item]
    return -1


@njit
def decode_parts(wire, end, nodes, places, offsets, counts, arena, data_at, cursors, tile, results, failure):
    """Do what the kernels do that decode the parts."""
    words, longs = wire.view(np.uint64), arena[3]
    device_arena = (longs.view(np.uint32), longs.view(np.int16), longs.view(np.int32), longs)
    chosen, rows = slots_of(nodes)
    count = chosen.size
    state = sheet(rows, 0)
    flat = np.zeros(4 * places.size + 4 * count, np.uint32)
    used = 0
    for slot in range(count):
        column = row_at(count, slot)
        items = counts[chosen[slot]]
        state[column + table.ITEMS] = items
        used = lay_out(count, slot, state, used, flat)
        state[column + table.SOURCE] = state[column + table.PLACES]
        for item in range(items):
            flat[state[column + table.PLACES] + item] = places[slot, item]
        if is_list(rows[slot, SHAPE]):
            arena[2][rows[slot, VALUES_AT] // 4] = 0
            for item in range(items + 1):
                flat[state[column + table.OFFSETS] + item] = offsets[slot, item]
        for word in range((items + 31) // 32):
            by_field.clear_bitmaps(word, column, state, device_arena[0])
        for item in range(items):
            by_part.decode_part(item, words, slot, column, state, device_arena, arena[0], flat)
    if state[table.FAILURE] != table.NO_FAILURE:
        return refuse(state[table.FAILURE], chosen, count, state, flat, failure)
    finish(words, data_at, count, state, device_arena, flat)
    found = np.zeros((count, RESULT_WIDTH), np.int64)
    take_results(state, found)
    results[chosen] = found
    require_canaries(count, state, flat)
    if state[table.TEXT_FAILURE] != table.NO_FAILURE:
        packed = state[table.TEXT_FAILURE]
        slot = (packed >> 8) & 0xFFFF
        return refuse((slot << 40) | ((packed >> 24) << 8) | NOT_UTF8, chosen, count, state, flat, failure)
    return 0
