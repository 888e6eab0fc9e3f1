"""Device blocks in, device batches out: the scan and decode of one reply, with the memory they use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kernels import layout, wire
from kernels.cuda.batch import DeviceBatch
from kernels.cuda.decode import decode
from kernels.cuda.geometry import Geometry
from kernels.cuda.memory import Scratch, address_of, download, upload
from kernels.cuda.nested import Nested
from kernels.cuda.scan import scan, segments_of
from kernels.cuda.table import SEGMENT_WIDTH, state_words
from kernels.decoder import ARENA_SLACK_BYTES, HEAD_BYTES, Scan, error_of, header_size
from kernels.errors import DecodeError
from kernels.plan import Plan, align
from kernels.typing import DeviceAllocate, DeviceArray, Int64s, Uint8s

Walk = Callable[..., tuple[int, int, int]]
"""The host twin's scan."""


class CudaDecoder:
    """Decodes the rows of one reply on a device, block after block.

    All work of a call is queued on its stream, in order, and the call returns when the stream has come past it.
    What the block holds must be there on that stream: copied on it, or waited for by it.  Scratch memory is used
    again by the next call, which may come on any stream, for the last one is over.  The device must be current.

    Not thread-safe: one decoder belongs to one stream of blocks.

    Parameters
    ----------
    plan : Plan
    allocate : DeviceAllocate
        Where scratch and Arrow buffers come from.
    kind : int
        COPY_DATA or DATA_ROW.
    batch_bytes : int
        Bytes a batch should take, of fixed-width Arrow data and of wire data each.
    walk : callable, optional
        The host twin's scan, for blocks on which the parallel proof is slow: values full of what looks like rows.
    geometry : Geometry, optional
    batch_allocate : DeviceAllocate, optional
        Where the batches' memory comes from, if not from where scratch does.
    """

    def __init__(
        self,
        plan: Plan,
        allocate: DeviceAllocate,
        *,
        kind: int,
        batch_bytes: int,
        walk: Walk | None = None,
        geometry: Geometry | None = None,
        batch_allocate: DeviceAllocate | None = None,
    ) -> None:
        columns = len(plan.names)
        self._smallest_row = wire.MESSAGE_HEAD_BYTES + 2 + 4 * columns
        self.rows_per_batch = max(1, min(batch_bytes // self._smallest_row, batch_bytes // plan.bytes_per_row()))
        self.rows = 0
        self.walks = 0
        """Scans that the host walk had to finish."""
        self._plan = plan
        self._batch_allocate = batch_allocate or allocate
        self._kind = kind
        self._walk = walk
        self._geometry = geometry or Geometry()
        self._header_pending = False
        self._begin = 0
        self._scratch = Scratch(allocate)
        self._state = self._scratch.take("state", 8 * state_words(columns)).view(np.int64)
        self._bounds = self._scratch.table("bounds", 2, 1)
        self._nested = Nested(plan, self._scratch, self._geometry) if plan.nested_nodes else None
        self._failure = np.zeros(layout.FAILURE_WIDTH, np.int64)
        shapes = plan.descriptors[:columns, layout.SHAPE]
        self._gathered = int(np.isin(shapes, (layout.VARLEN, layout.VECTOR)).sum())
        self.expect_header()

    def expect_header(self) -> None:
        """Begin a reply: a COPY starts with a header, glued to its first row."""
        self._header_pending = self._kind == wire.COPY_DATA

    def scan(
        self, block: DeviceArray, begin: int, end: int, base: int = 0, *, stream: int, copy: Uint8s | None = None
    ) -> Scan:
        """Find rows in ``block[begin:end]``; SCAN_FULL asks for another scan from `position`, whatever its cause.

        Parameters
        ----------
        block : uint8 device array
            A multiple of 8 bytes, 8-byte aligned, below 2 GiB, with at least WIRE_PAD_BYTES behind `end`.
        begin, end : int
            A message boundary, and the end of what was received.
        base : int
            Bytes of the reply before the block, for error messages.
        stream : int
        copy : uint8 array, optional
            The same bytes on the host, with the same pad: spares the host walk a copy.

        Raises
        ------
        DecodeError
            A length or a field count is impossible.
        """
        require_sound(block, begin, end)
        self._begin = begin
        header = 0
        if self._header_pending and end - begin >= wire.MESSAGE_HEAD_BYTES:
            head = download(block[begin : min(end, begin + HEAD_BYTES)], stream=stream)
            if head[0] == self._kind:
                size = header_size(head, end - begin)
                if size is None:
                    return Scan(0, begin, layout.SCAN_MORE)
                header, self._header_pending = size, size == 0
        rows, position, reason = self._find(block, begin, end, header, stream)
        proven = position - begin
        if reason == layout.SCAN_FULL and rows < self.rows_per_batch and 2 * proven < end - begin and self._walk:
            rows, position, reason = self._walk_on_host(block, begin, end, header, stream, copy)
        if reason == layout.SCAN_FAILED:
            self._failure[layout.COLUMN] = -1
            raise error_of(self._failure, self._plan, self.rows, base)
        return Scan(rows, position, reason)

    def decode(self, block: DeviceArray, found: Scan, base: int = 0, *, stream: int) -> DeviceBatch:
        """Decode the rows of the last scan of the same block.

        The batch belongs to the caller; the block may be used again when this returns.

        Raises
        ------
        DecodeError
            The bytes break the wire format, or a column that PostgreSQL declares NOT NULL holds a NULL.
        ValueRangeError
            A value has no form in the Arrow type.
        """
        plan, rows, columns = self._plan, found.rows, len(self._plan.names)
        words = block.view(np.uint64)
        counts = np.full(len(plan.nodes), rows, np.int64)
        if self._nested:
            surveyed = self._nested.survey(words, self._bounds, rows, self._failure, stream=stream)
            if surveyed is None:
                raise error_of(self._failure, plan, self.rows, base)
            counts = surveyed
        table, data_at = plan.arrange(rows, counts)
        varlen = plan.varlen_nodes
        room = found.position - self._begin + layout.BUFFER_ALIGN_BYTES * varlen if varlen else 0
        size = align(data_at + room + ARENA_SLACK_BYTES)
        region = self._batch_allocate(size)
        results = np.zeros((len(plan.nodes), layout.RESULT_WIDTH), np.int64)
        longs = region.array[:size].view(np.int64)
        failed = 0
        if not (self._nested and self._nested.is_all):
            sources = self._scratch.table("sources", 1, max(1, self._gathered * rows))[0]
            failed = decode(
                words, found.position, self._bounds, rows, table[:columns], longs, data_at, sources,
                results[:columns], self._failure, state=self._state, geometry=self._geometry, stream=stream,
            )  # fmt: skip
        if self._nested and not failed:
            behind = align(max(data_at, end_of_data(results)))
            failed = self._nested.decode(
                words, found.position, table, longs, behind, results, self._failure, stream=stream
            )
        if failed:
            raise error_of(self._failure, plan, self.rows, base)
        for field, nulls in zip(plan.schema, results[:columns, layout.NULLS].tolist(), strict=True):
            if nulls and not field.nullable:
                raise DecodeError("NULL in a column declared NOT NULL", column=field.name)
        self.rows += rows
        return DeviceBatch(plan, table, results, counts, region, rows, max(data_at, end_of_data(results)))

    def _find(self, block: DeviceArray, begin: int, end: int, header: int, stream: int) -> tuple[int, int, int]:
        geometry, columns = self._geometry, len(self._plan.names)
        self._bounds = self._scratch.table("bounds", 2, self._most_rows(end - begin))
        return scan(
            block.view(np.uint64), begin, end, self._kind, header, columns,
            self._bounds, self.rows_per_batch, self._failure,
            segments=self._scratch.table("segments", SEGMENT_WIDTH, segments_of(begin, end, geometry)),
            state=self._state, geometry=geometry, stream=stream,
        )  # fmt: skip

    def _walk_on_host(
        self, block: DeviceArray, begin: int, end: int, header: int, stream: int, copy: Uint8s | None
    ) -> tuple[int, int, int]:
        """Scan as the host twin does, and bring the rows to the device."""
        self.walks += 1
        if copy is None:
            copy = download(block[: end + layout.WIRE_PAD_BYTES], stream=stream)
        bounds = np.zeros((2, self._most_rows(end - begin)), np.uint32)
        walk: Any = self._walk
        rows, position, reason = walk(
            copy, begin, end, self._kind, header, len(self._plan.names),
            bounds[0], bounds[1], self.rows_per_batch, self._failure,
        )  # fmt: skip
        upload(self._bounds, bounds, stream=stream)
        return rows, position, reason

    def _most_rows(self, size_bytes: int) -> int:
        """Return how many rows that many bytes can hold, of those wanted at most."""
        shortest = wire.MESSAGE_HEAD_BYTES + 2
        return min(self.rows_per_batch, size_bytes // shortest) + 1


def end_of_data(results: Int64s) -> int:
    """Return where the last data of VARLEN columns ends, or 0."""
    ends: Int64s = results[:, layout.DATA_AT] + results[:, layout.DATA_BYTES]
    return int(ends.max(initial=0))


def require_sound(block: DeviceArray, begin: int, end: int) -> None:
    """Refuse what the kernels must not be given.

    Raises
    ------
    ValueError
        The block is no array of whole aligned words, too large, or too small for its pad.
    """
    size, address = block.size, address_of(block)
    if (size | address) % 8 or size >= 1 << 31 or not 0 <= begin <= end <= size - layout.WIRE_PAD_BYTES:
        raise ValueError(f"a block of {size} bytes at {address:#x} cannot be scanned from {begin} to {end}")
