"""Follow the chain of messages from a place that is, or seems to be, a message boundary."""

from __future__ import annotations

from kernels.cuda._cuda import device
from kernels.cuda.load import be16, be32, byte
from kernels.cuda.table import BROKEN, GOES_ON, NOWHERE
from kernels.layout import BAD_FIELD_COUNT, BAD_MESSAGE_LENGTH, SCAN_MESSAGE, SCAN_MORE, SCAN_TRAILER
from kernels.primitives import Int, u64
from kernels.typing import DeviceArray
from kernels.wire import COPY_DATA, MESSAGE_HEAD_BYTES

HEAD = u64(MESSAGE_HEAD_BYTES)
EVERY_BYTE = u64(0x0101010101010101)
EVERY_TOP_BIT = u64(0x8080808080808080)


@device
def look(words: DeviceArray, at: Int, end: Int, kind: Int, header: Int, field_count: Int) -> tuple[Int, Int, Int]:
    """Say what the message at `at` is: (GOES_ON or why a walk stops, where the field count is, where it ends)."""
    if at + HEAD > end:
        return SCAN_MORE, at, at
    length = be32(words, at + u64(1))
    if length < 4:
        return BROKEN + BAD_MESSAGE_LENGTH, at, at
    after = at + u64(1) + u64(length)
    if after > end:
        return SCAN_MORE, at, at
    if byte(words, at) != u64(kind):
        return SCAN_MESSAGE, at, at
    start = at + HEAD + header
    if start + u64(2) > after:
        return BROKEN + BAD_FIELD_COUNT, start, at
    fields = be16(words, start)
    if fields == field_count:
        return GOES_ON, start, after
    if fields == -1 and start + u64(2) == after and kind == COPY_DATA:
        return SCAN_TRAILER, start, after
    return BROKEN + BAD_FIELD_COUNT, start, at


@device
def walk(
    words: DeviceArray, at: Int, goal: Int, end: Int, kind: Int, header: Int, field_count: Int
) -> tuple[Int, Int, Int]:
    """Count the rows that start before `goal`.

    Returns
    -------
    (rows, exit, reason)
        Where the walk ended, and GOES_ON if a row starts there, else why it cannot go on.
    """
    rows = 0
    while True:
        reason, _, after = look(words, at, end, kind, header, field_count)
        if reason == SCAN_TRAILER:
            return rows, after, reason
        if reason != GOES_ON or at >= goal:
            return rows, at, reason
        rows += 1
        at = after
        header = u64(0)


@device
def candidate(words: DeviceArray, at: Int, goal: Int, end: Int, kind: Int, field_count: Int) -> Int:
    """Return the first place before `goal` that looks like the start of a row, or NOWHERE.

    A guess, which the proof of the chain confirms or refuses: it may be wrong both ways.
    """
    pattern = u64(kind) * EVERY_BYTE
    while at < goal:
        if at & u64(7) == u64(0):
            differences = words[at >> u64(3)] ^ pattern
            if (((differences | EVERY_TOP_BIT) - EVERY_BYTE) | differences) & EVERY_TOP_BIT == EVERY_TOP_BIT:
                at += u64(8)  # none of these eight bytes is the message type
                continue
        if byte(words, at) == u64(kind):
            reason, start, after = look(words, at, end, kind, u64(0), field_count)
            roomy = after >= start + u64(2) + u64(4 * field_count)
            if reason == GOES_ON and roomy and is_plausible(words, after, end, kind, field_count):
                return at
        at += u64(1)
    return u64(NOWHERE)


@device
def is_plausible(words: DeviceArray, at: Int, end: Int, kind: Int, field_count: Int) -> bool:
    """Tell whether a message may start at `at`."""
    if at + HEAD > end:
        return True
    reason, _, _ = look(words, at, end, kind, u64(0), field_count)
    letter = byte(words, at)
    return bool(reason < BROKEN or reason == GOES_ON) and bool(u64(0x31) <= letter <= u64(0x7A))
