"""Walk the rows of a COPY BINARY file: without frames, only a row's own lengths say where the next one starts."""

from __future__ import annotations

import numpy as np

from kernels.host._jit import njit
from kernels.host.memory import be16, be32
from kernels.layout import (
    BAD_FIELD_COUNT,
    BAD_LENGTH,
    CODE,
    OFFSET,
    ROW,
    SCAN_FAILED,
    SCAN_FULL,
    SCAN_MORE,
    SCAN_TRAILER,
)
from kernels.primitives import Bytes, Int, u64
from kernels.typing import Int64s, Uint32s


@njit
def scan_tuples(
    wire: Bytes,
    begin: Int,
    end: Int,
    field_count: Int,
    starts: Uint32s,
    ends: Uint32s,
    limit: Int,
    failure: Int64s,
) -> tuple[Int, Int, Int]:
    """Find the rows in ``wire[begin:end]`` by the chain of field lengths; see `kernels.host.scan` for the rest."""
    rows = 0
    at = u64(begin)
    stop = u64(end)
    while True:
        if rows == limit:
            return rows, np.int64(at), SCAN_FULL
        if at + u64(2) > stop:
            return rows, np.int64(at), SCAN_MORE
        fields = be16(wire, at)
        if fields == -1:
            return rows, np.int64(at + u64(2)), SCAN_TRAILER
        if fields != field_count:
            failure[CODE] = BAD_FIELD_COUNT
            failure[ROW] = rows
            failure[OFFSET] = np.int64(at)
            return rows, np.int64(at), SCAN_FAILED
        after = at + u64(2)
        for _ in range(field_count):
            if after + u64(4) > stop:
                return rows, np.int64(at), SCAN_MORE
            length = be32(wire, after)
            if length < -1:
                failure[CODE] = BAD_LENGTH
                failure[ROW] = rows
                failure[OFFSET] = np.int64(after)
                return rows, np.int64(at), SCAN_FAILED
            after += u64(4)
            if length > 0:
                after += u64(length)
            if after > stop:
                return rows, np.int64(at), SCAN_MORE
        starts[rows] = at
        ends[rows] = after
        rows += 1
        at = after
