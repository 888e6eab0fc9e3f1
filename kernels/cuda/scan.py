"""Find the rows of a block on the device: three kernels on one stream and one look at the result."""

from __future__ import annotations

from kernels import layout
from kernels.cuda.geometry import Geometry
from kernels.cuda.launch import launch
from kernels.cuda.memory import download
from kernels.cuda.segments import emit_kernel, enter_kernel, prove_kernel
from kernels.cuda.table import BROKEN, LIMIT_POSITION, POSITION, ROWS, SCAN_WORDS, STOP
from kernels.typing import DeviceArray, Int64s
from kernels.wire import MESSAGE_HEAD_BYTES


def segments_of(begin: int, end: int, geometry: Geometry) -> int:
    """Return the number of segments of a block."""
    return max(1, -(-(end - begin) // geometry.segment_bytes))


def scan(
    words: DeviceArray,
    begin: int,
    end: int,
    kind: int,
    header: int,
    field_count: int,
    bounds: DeviceArray,
    limit: int,
    failure: Int64s,
    *,
    segments: DeviceArray,
    state: DeviceArray,
    geometry: Geometry,
    stream: int,
) -> tuple[int, int, int]:
    """Find rows in ``wire[begin:end]`` by the chain of message lengths; synchronises with the stream.

    Parameters
    ----------
    words : uint64 device array
        The block; at least WIRE_PAD_BYTES readable beyond `end`.
    begin, end, kind, header, field_count, limit
        As for the host twin.
    bounds : uint32 device array, 2 x at least `limit`
        Receives, per row, the offset of its field count and of its end.
    failure : int64 array
        The failure record, on the host, filled when SCAN_FAILED is returned.
    segments : uint32 device array, SEGMENT_WIDTH x at least `segments_of` the block
    state : int64 device array
        See kernels/cuda/table.py.

    Returns
    -------
    (rows, position, reason)
        As of the host twin, but SCAN_FULL also where the proof of the chain ended early: then, too, the next scan
        begins at `position`.  Every scan finds a row or another reason to stop.
    """
    count = segments_of(begin, end, geometry)
    blocks = -(-count // geometry.threads)
    launch(
        enter_kernel, blocks, geometry.threads, stream,
        words, begin, end, kind, header, field_count, geometry.segment_bytes, count, segments,
    )  # fmt: skip
    launch(prove_kernel, 1, geometry.sum_threads, stream, begin, count, segments, state)
    launch(
        emit_kernel, blocks, geometry.threads, stream,
        words, end, kind, header, field_count, limit, count, segments, bounds, state,
    )  # fmt: skip
    found = download(state[:SCAN_WORDS], stream=stream)
    rows, position, reason = int(found[ROWS]), int(found[POSITION]), int(found[STOP])
    if rows >= limit:
        return limit, int(found[LIMIT_POSITION]), layout.SCAN_FULL
    if reason < BROKEN:
        return rows, position, reason
    failure[layout.CODE] = reason - BROKEN
    failure[layout.ROW] = rows
    failure[layout.OFFSET] = position
    if reason - BROKEN == layout.BAD_FIELD_COUNT:
        failure[layout.OFFSET] += MESSAGE_HEAD_BYTES + (header if position == begin else 0)
    return rows, position, layout.SCAN_FAILED
