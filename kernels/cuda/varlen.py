"""Values of any length: measured row by row, summed column by column, gathered sixteen bytes at a time."""

from __future__ import annotations

from kernels import layout
from kernels.cuda._cuda import atomic_add, count_bits, device
from kernels.cuda.field import record
from kernels.cuda.load import byte, window
from kernels.cuda.sums import running_sum
from kernels.cuda.table import (
    ALIGN,
    DATA_BYTES,
    DESCRIPTOR_WIDTH,
    ITEMS,
    NULLS,
    PREFIX,
    RESULT_WIDTH,
    RESULTS,
    SHAPE,
    SOURCE,
    TEXT_FAILURE,
    UTF8,
    VALIDITY_AT,
    VALUES_AT,
)
from kernels.cuda.utf8 import BEYOND_ASCII, is_text
from kernels.primitives import Int, i32, i64, u64
from kernels.typing import DeviceArena, DeviceArray

CHUNK_BYTES = 16
"""What one thread gathers at a time: whole words of the data, which no other thread writes."""

BLANK = ord(" ")


@device
def measure(
    words: DeviceArray,
    at: Int,
    length: Int,
    row: Int,
    column: Int,
    state: DeviceArray,
    arena: DeviceArena,
    sources: DeviceArray,
) -> Int:
    """Note where a value's bytes are, and how many where its end will be; return OK or a failure code."""
    skip = i64(0)
    if state[column + PREFIX] >= 0:
        if length == 0 or i64(byte(words, at)) != state[column + PREFIX]:
            return layout.BAD_PREFIX
        skip = i64(1)
    elif state[column + PREFIX] == layout.BLANKS:
        while length > 0 and byte(words, at + u64(length - 1)) == BLANK:
            length -= 1
    arena[2][(u64(state[column + VALUES_AT]) >> u64(2)) + u64(row + 1)] = i32(length - skip)
    sources[u64(state[column + SOURCE]) + u64(row)] = at + u64(skip)
    return layout.OK


@device
def sum_column(
    thread: Int,
    threads: Int,
    index: Int,
    column: Int,
    state: DeviceArray,
    arena: DeviceArena,
    sums: DeviceArray,
) -> None:
    """Count a column's NULLs and turn its lengths, if it is VARLEN, into offsets (one block; `sums` is shared)."""
    result = RESULTS + u64(index) * RESULT_WIDTH
    bits = arena[0]
    validity = u64(state[column + VALIDITY_AT]) >> u64(2)
    rows = state[column + ITEMS]
    nulls = i64(0)
    for word in range(thread, (rows + 31) >> 5, threads):
        nulls += i64(32) - i64(count_bits(bits[validity + u64(word)]))
    if nulls > 0:
        atomic_add(state, result + NULLS, nulls)
    if state[column + SHAPE] != layout.VARLEN:
        return
    offsets = u64(state[column + VALUES_AT]) >> u64(2)
    total = add_up(thread, threads, arena[2], offsets, rows, sums)
    if thread == 0:
        state[result + DATA_BYTES] = total


@device
def add_up(thread: Int, threads: Int, numbers: DeviceArray, at: Int, count: Int, sums: DeviceArray) -> Int:
    """Turn `count` lengths, which stand behind `at`, into offsets from there on; return the last (one block)."""
    share = (count + threads - 1) // threads
    first = min(thread * share, count)
    last = min(first + share, count)
    total = i64(0)
    for index in range(first, last):
        total += i64(numbers[at + u64(index + 1)])
    sums[u64(thread)] = total
    running_sum(sums, thread, threads)
    end = sums[u64(thread)] - total
    for index in range(first, last):
        end += i64(numbers[at + u64(index + 1)])
        numbers[at + u64(index + 1)] = i32(end)
    if thread == 0:
        numbers[at] = i32(0)
    return sums[u64(threads - 1)]


@device
def place_data(number: Int, columns: Int, data_at: Int, table: Int, state: DeviceArray) -> tuple[Int, Int]:
    """Return (index, where its data begins) of the VARLEN column of that number: behind those before it."""
    at = u64(data_at)
    before = i64(number)
    for index in range(columns):
        column = table + u64(index) * DESCRIPTOR_WIDTH
        if state[column + SHAPE] == layout.VARLEN:
            if before == 0:
                return index, at
            before -= i64(1)
            size = u64(state[RESULTS + u64(index) * RESULT_WIDTH + DATA_BYTES])
            at += (size + ALIGN - u64(1)) // ALIGN * ALIGN
    return 0, at


@device
def gather(
    chunk: Int,
    chunks: Int,
    words: DeviceArray,
    index: Int,
    column: Int,
    data_at: Int,
    state: DeviceArray,
    arena: DeviceArena,
    sources: DeviceArray,
) -> None:
    """Move every `chunks`-th piece of a column's data to its place, and prove text to be UTF-8."""
    ints = arena[2]
    longs = arena[3]
    offsets = u64(state[column + VALUES_AT]) >> u64(2)
    first_source = u64(state[column + SOURCE])
    rows = state[column + ITEMS]
    text = state[column + UTF8] == 1
    size = state[RESULTS + u64(index) * RESULT_WIDTH + DATA_BYTES]
    for begin in range(chunk * CHUNK_BYTES, size, chunks * CHUNK_BYTES):
        row = row_of(begin, rows, ints, offsets)
        end = min(begin + CHUNK_BYTES, size)
        at = i64(begin)
        word = u64(0)
        while at < end:
            first = i64(ints[offsets + u64(row)])
            last = i64(ints[offsets + u64(row + 1)])
            stop = min(last, end, (at | i64(7)) + i64(1))
            source = u64(sources[first_source + u64(row)]) + u64(at - first)
            filled = u64(at & i64(7)) << u64(3)
            piece = window(words, source)
            count = u64(stop - at)
            if count < u64(8):
                piece &= (u64(1) << (count << u64(3))) - u64(1)
            if text and piece & BEYOND_ASCII != u64(0):
                value = source - u64(at - first)
                if not is_text(words, source, source + count, value, value + u64(last - first)):
                    record(state, TEXT_FAILURE, row, index, layout.NOT_UTF8)
            word |= piece << filled
            at = stop
            if at & i64(7) == 0 or at == end:
                longs[u64(data_at + u64(at - 1)) >> u64(3)] = i64(word)
                word = u64(0)
            while at >= last and at < end:
                row += 1
                last = i64(ints[offsets + u64(row + 1)])


@device
def row_of(at: Int, rows: Int, ints: DeviceArray, offsets: Int) -> Int:
    """Return the row whose value holds byte `at` of the data: the last one that begins there or before."""
    low = i64(0)
    high = i64(rows)
    while high - low > 1:
        middle = (low + high) >> i64(1)
        if i64(ints[offsets + u64(middle)]) <= at:
            low = middle
        else:
            high = middle
    return low
