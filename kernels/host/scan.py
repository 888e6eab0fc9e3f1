"""Walk the frames of a block: which bytes are rows, and what stopped the walk."""

from __future__ import annotations

import numpy as np

from kernels.host._jit import njit
from kernels.host.memory import be16, be32
from kernels.layout import (
    BAD_FIELD_COUNT,
    BAD_MESSAGE_LENGTH,
    CODE,
    OFFSET,
    ROW,
    SCAN_FAILED,
    SCAN_FULL,
    SCAN_MESSAGE,
    SCAN_MORE,
    SCAN_TRAILER,
)
from kernels.primitives import Bytes, Int, u64
from kernels.typing import Int64s, Uint32s
from kernels.wire import COPY_DATA


@njit
def scan(
    wire: Bytes,
    begin: Int,
    end: Int,
    kind: Int,
    header: Int,
    field_count: Int,
    starts: Uint32s,
    ends: Uint32s,
    limit: Int,
    failure: Int64s,
) -> tuple[Int, Int, Int]:
    """Find the rows in ``wire[begin:end]`` by the chain of message lengths.

    Parameters
    ----------
    wire : uint8 array
        The block; at least WIRE_PAD_BYTES readable beyond `end`.
    begin, end : int
        A message boundary, and the end of what was received.
    kind : int
        The message type that carries rows: ``d`` (COPY) or ``D`` (extended protocol).
    header : int
        Bytes of the COPY header before the first row of the first message; 0 afterwards.
    field_count : int
        Fields every row must have.
    starts, ends : uint32 arrays of at least `limit`
        Receive, per row, the offset of its field count and of its end.
    limit : int
        Rows wanted at most.
    failure : int64 array
        The failure record, filled when SCAN_FAILED is returned.

    Returns
    -------
    (rows, position, reason)
        `reason` is one of the SCAN_* constants, `position` the next byte to look at.
    """
    rows = 0
    at = u64(begin)
    stop = u64(end)
    while True:
        if rows == limit:
            return rows, np.int64(at), SCAN_FULL
        if at + u64(5) > stop:
            return rows, np.int64(at), SCAN_MORE
        length = be32(wire, at + u64(1))
        if length < 4:
            failure[CODE] = BAD_MESSAGE_LENGTH
            failure[ROW] = rows
            failure[OFFSET] = np.int64(at)
            return rows, np.int64(at), SCAN_FAILED
        after = at + u64(1) + u64(length)
        if after > stop:
            return rows, np.int64(at), SCAN_MORE
        if wire[at] != kind:
            return rows, np.int64(at), SCAN_MESSAGE
        start = at + u64(5) + u64(header)
        header = 0
        fields = be16(wire, start)
        if start + u64(2) > after or fields != field_count:
            if fields == -1 and start + u64(2) == after and kind == COPY_DATA:
                return rows, np.int64(after), SCAN_TRAILER
            failure[CODE] = BAD_FIELD_COUNT
            failure[ROW] = rows
            failure[OFFSET] = np.int64(start)
            return rows, np.int64(at), SCAN_FAILED
        starts[rows] = start
        ends[rows] = after
        rows += 1
        at = after
