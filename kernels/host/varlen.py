"""Decode values of any length: measure them while walking the rows, gather them when the sizes are known."""

from __future__ import annotations

from typing import Any

from kernels.host._jit import inline
from kernels.host.field import ABSENT, clear_bit, fail, move_cursor
from kernels.host.memory import be32, copy32
from kernels.layout import BAD_LENGTH, BAD_PREFIX, BEYOND_BLOCK, BLANKS, DELTA, PREFIX, TOP, VALIDITY_AT, VALUES_AT
from kernels.primitives import Bytes, Int, i64, u64
from kernels.typing import Int64s, Uint32s

BLANK = ord(" ")


@inline
def measure(
    wire: Bytes,
    last: Int,
    end: Int,
    cursors: Uint32s,
    first: Int,
    count: Int,
    total: Int,
    column: Int64s,
    validity: Bytes,
    offsets: Any,
    sources: Uint32s,
    tile: Int64s,
    failure: Int64s,
) -> tuple[Int, Int]:
    """Write the offsets of `count` values and where their bytes are; return (NULLs or -1, new total)."""
    at = u64(column[VALUES_AT] // 4 + first + 1)
    bits = u64(column[VALIDITY_AT] * 8 + first)
    prefix = column[PREFIX]
    skip = 0 if prefix < 0 else 1
    delta = u64(tile[DELTA])
    nulls = 0
    top = u64(0)
    for row in range(count):
        cursor = u64(cursors[row]) + delta
        if cursor > last and cursor != ABSENT:
            return fail(failure, BEYOND_BLOCK, row, cursor), total
        length = be32(wire, cursor) if cursor <= last else i64(-1)
        if length >= skip:
            if cursor + u64(4) + u64(length) > end:
                return fail(failure, BEYOND_BLOCK, row, cursor), total
            if skip == 1 and i64(wire[cursor + u64(4)]) != prefix:
                return fail(failure, BAD_PREFIX, row, cursor), total
            total += without_blanks(wire, cursor + u64(4), length) if prefix == BLANKS else length - skip
        elif length == -1:
            clear_bit(validity, bits + u64(row))
            nulls += 1
        else:
            return fail(failure, BAD_PREFIX if length == 0 else BAD_LENGTH, row, cursor), total
        sources[u64(first + row)] = cursor + u64(4 + skip)
        offsets[at + u64(row)] = total
        top = move_cursor(cursors, row, cursor, length, top)
    tile[DELTA] = 0
    tile[TOP] = i64(top)
    return nulls, total


@inline
def without_blanks(wire: Bytes, at: Int, length: Int) -> Int:
    """Return the length of a value without the blanks at its end."""
    while length > 0 and wire[at + u64(length - 1)] == BLANK:
        length -= 1
    return length


@inline
def gather(wire: Bytes, sources: Uint32s, offsets: Any, offsets_at: Int, rows: Int, arena: Bytes, at: Int) -> None:
    """Move the bytes of `rows` values to ``arena[at:]``, 32 at a time.

    Up to 32 bytes behind each value are read and written too: the next value overwrites them, and behind the
    last one block and arena have room.  The lengths were proven to lie in the block when the rows' chains were.
    """
    base = u64(at)
    begin = u64(0)
    for row in range(rows):
        end = u64(offsets[u64(offsets_at + row + 1)])
        length = end - begin
        source = u64(sources[u64(row)])
        target = base + begin
        copy32(arena, target, wire, source)
        done = u64(32)
        while done < length:
            copy32(arena, target + done, wire, source + done)
            done += u64(32)
        begin = end
