"""Find the rows of a block: walk its segments side by side, prove that the walks join, write down the rows.

A thread guesses where the first row of its segment starts and walks from there; the first thread knows.  A guess
is right if the walk before it ended exactly there; a segment without a guess is left out.  What is proven this way
is the truth; behind the first failure nothing is used, and the next scan starts where the proof ended, which is
known again.
"""

from __future__ import annotations

from kernels.cuda._cuda import atomic_min, barrier, cuda, device, kernel
from kernels.cuda.geometry import MAX_THREADS
from kernels.cuda.sums import running_max, running_sum
from kernels.cuda.table import (
    COUNT,
    ENTER,
    EVENT,
    EXIT,
    FIRST,
    GOES_ON,
    LIMIT_POSITION,
    NO_FAILURE,
    NOWHERE,
    POSITION,
    REASON,
    ROWS,
    STOP,
)
from kernels.cuda.walk import candidate, look, walk
from kernels.layout import SCAN_FULL
from kernels.primitives import Int, i64, u64
from kernels.typing import DeviceArray

START, END = 0, 1
"""Rows of the table of rows: offset of the field count, and of the row's end."""


@device
def enter_segment(
    segment: Int,
    words: DeviceArray,
    begin: Int,
    end: Int,
    kind: Int,
    header: Int,
    field_count: Int,
    segment_bytes: Int,
    segments: DeviceArray,
) -> None:
    """Guess where the rows of a segment start, and walk them."""
    first = u64(begin + segment * segment_bytes)
    goal = min(first + u64(segment_bytes), u64(end))
    at = first
    skip = u64(header)
    if segment > 0:
        at = candidate(words, first, goal, u64(end), kind, field_count)
        skip = u64(0)
    rows = i64(0)
    reason = i64(GOES_ON)
    after = at
    if at != u64(NOWHERE):
        rows, after, reason = walk(words, at, goal, u64(end), kind, skip, field_count)
    segments[ENTER, u64(segment)] = at
    segments[EXIT, u64(segment)] = after
    segments[COUNT, u64(segment)] = rows
    segments[REASON, u64(segment)] = reason


@device
def prove_segments(
    thread: Int,
    threads: Int,
    begin: Int,
    count: Int,
    segments: DeviceArray,
    state: DeviceArray,
    exits: DeviceArray,
    sums: DeviceArray,
) -> None:
    """Find where the chain of segments ends, and what it found (one block; `exits`, `sums` are its shared memory).

    While the chain holds its exits grow: the largest exit so far is the last one, where the next row starts.
    """
    share = (count + threads - 1) // threads
    first = min(thread * share, count)
    last = min(first + share, count)
    furthest = i64(begin)
    rows = i64(0)
    for segment in range(first, last):
        if segments[ENTER, u64(segment)] != NOWHERE:
            furthest = max(furthest, i64(segments[EXIT, u64(segment)]))
            rows += i64(segments[COUNT, u64(segment)])
    exits[u64(thread)] = furthest
    sums[u64(thread)] = rows
    if thread == 0:
        state[EVENT] = NO_FAILURE
    running_max(exits, thread, threads)
    running_sum(sums, thread, threads)
    due = i64(begin) if thread == 0 else exits[u64(thread - 1)]
    rows = sums[u64(thread)] - rows
    event = i64(NO_FAILURE)
    reason = i64(SCAN_FULL)
    for segment in range(first, last):
        entered = i64(segments[ENTER, u64(segment)])
        segments[FIRST, u64(segment)] = rows
        if entered == NOWHERE:
            continue  # jumped over, or its rows were not recognised: then no later segment begins where it is due
        if entered != due:
            event = i64(2 * segment)
            break
        rows += i64(segments[COUNT, u64(segment)])
        due = i64(segments[EXIT, u64(segment)])
        if i64(segments[REASON, u64(segment)]) != GOES_ON:
            event = i64(2 * segment + 1)
            reason = i64(segments[REASON, u64(segment)])
            break
    if event == NO_FAILURE and thread == threads - 1:
        event = i64(2 * count)
    if event != NO_FAILURE:
        atomic_min(state, EVENT, event)
    barrier()
    if event == state[EVENT]:
        state[ROWS] = rows
        state[POSITION] = due
        state[STOP] = reason


@device
def emit_rows(
    segment: Int,
    words: DeviceArray,
    end: Int,
    kind: Int,
    header: Int,
    field_count: Int,
    limit: Int,
    segments: DeviceArray,
    bounds: DeviceArray,
    state: DeviceArray,
) -> None:
    """Write down the rows of a proven segment, up to the `limit` of all rows."""
    event = state[EVENT]
    if 2 * segment + 1 > event or segments[ENTER, u64(segment)] == NOWHERE:
        return
    row = i64(segments[FIRST, u64(segment)])
    stop = min(row + i64(segments[COUNT, u64(segment)]), limit)
    at = u64(segments[ENTER, u64(segment)])
    skip = u64(header) if segment == 0 else u64(0)
    while row < stop:
        _, start, after = look(words, at, u64(end), kind, skip, field_count)
        bounds[START, u64(row)] = start
        bounds[END, u64(row)] = after
        row += 1
        if row == limit:
            state[LIMIT_POSITION] = i64(after)
        at = after
        skip = u64(0)


@kernel
def enter_kernel(
    words: DeviceArray,
    begin: Int,
    end: Int,
    kind: Int,
    header: Int,
    field_count: Int,
    segment_bytes: Int,
    count: Int,
    segments: DeviceArray,
) -> None:
    """One thread per segment."""
    segment = cuda.grid(1)
    if segment < count:
        enter_segment(segment, words, begin, end, kind, header, field_count, segment_bytes, segments)


@kernel
def prove_kernel(begin: Int, count: Int, segments: DeviceArray, state: DeviceArray) -> None:
    """One block for all segments."""
    exits = cuda.shared.array(MAX_THREADS, i64)
    sums = cuda.shared.array(MAX_THREADS, i64)
    prove_segments(cuda.threadIdx.x, cuda.blockDim.x, begin, count, segments, state, exits, sums)


@kernel
def emit_kernel(
    words: DeviceArray,
    end: Int,
    kind: Int,
    header: Int,
    field_count: Int,
    limit: Int,
    count: Int,
    segments: DeviceArray,
    bounds: DeviceArray,
    state: DeviceArray,
) -> None:
    """One thread per segment."""
    segment = cuda.grid(1)
    if segment < count:
        emit_rows(segment, words, end, kind, header, field_count, limit, segments, bounds, state)
