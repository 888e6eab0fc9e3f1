"""Blocks in, record batches out: the scan and decode of one reply, with the memory they use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from kernels import layout, wire
from kernels.assemble import assemble
from kernels.errors import DecodeError, ValueRangeError
from kernels.parts import Parts
from kernels.plan import Plan, align
from kernels.typing import Allocate, Backend, Int64s, Uint8s

ARENA_SLACK_BYTES = 128
"""The gather writes up to 32 bytes behind the last value; each VARLEN column is padded to 64."""

HEAD_BYTES = wire.MESSAGE_HEAD_BYTES + (1 << 16)
"""Bytes of a reply's first message in which the COPY header must end."""

MESSAGES = {
    layout.BAD_LENGTH: "the field's length does not fit its type",
    layout.BEYOND_BLOCK: "the field runs beyond the received bytes",
    layout.ROW_MISMATCH: "the fields do not end where the row ends",
    layout.BAD_BOOL: "a boolean that is neither 0 nor 1",
    layout.BAD_NUMERIC: "a numeric with an impossible sign or digit",
    layout.BAD_PREFIX: "an unknown version byte",
    layout.BAD_FIELD_COUNT: "the row has another number of fields than the result",
    layout.BAD_MESSAGE_LENGTH: "a message with an impossible length",
    layout.BAD_NESTED: "an array, composite, range or map whose parts do not fill it exactly",
    layout.OTHER_TYPE: "a part of another type than the catalog says: the type was changed",
    layout.OTHER_DIMENSION: "a vector of another dimension than its column declares",
    layout.NOT_UTF8: "the text is not valid UTF-8 (cast the column to bytea to read its bytes)",
}
RANGE_MESSAGES = {
    layout.OTHER_SHAPE: "an array of several dimensions has no list form: use option arrays=nd or arrays=text",
    layout.OTHER_BOUND: "a list would lose the array's lower bound: use option arrays=nd or arrays=text",
    layout.INFINITE: "an infinite value has no Arrow form: use option infinity=null or temporal=text",
    layout.OUT_OF_RANGE: "the value lies outside the range of the Arrow type: use option temporal=text",
    layout.NOT_A_NUMBER: "numeric NaN or infinity has no decimal form: use option numeric=string or float64",
    layout.TOO_PRECISE: "the numeric does not fit its declared precision and scale: use option numeric=string",
}


@dataclass(frozen=True, slots=True)
class Scan:
    """What a scan found.

    Parameters
    ----------
    rows : int
        Rows found, to be decoded with `Decoder.decode` before the next scan.
    position : int
        The next byte to look at.
    reason : int
        Why the scan stopped: SCAN_MORE, SCAN_FULL, SCAN_MESSAGE or SCAN_TRAILER.
    """

    rows: int
    position: int
    reason: int


class Decoder:
    """Decodes the rows of one reply, block after block.

    Not thread-safe: one decoder belongs to one stream.

    Parameters
    ----------
    plan : Plan
    backend : Backend
        The twin to use.
    allocate : Allocate
        Where the Arrow buffers come from.
    kind : int
        COPY_DATA or DATA_ROW.
    batch_bytes : int
        Bytes a batch should take, of fixed-width Arrow data and of wire data each.
    """

    def __init__(self, plan: Plan, backend: Backend, allocate: Allocate, *, kind: int, batch_bytes: int) -> None:
        columns = len(plan.names)
        smallest_row = wire.MESSAGE_HEAD_BYTES + 2 + 4 * columns
        self.rows_per_batch = max(1, min(batch_bytes // smallest_row, batch_bytes // plan.bytes_per_row()))
        self.rows = 0
        self._plan = plan
        self._backend = backend
        self._allocate = allocate
        self._kind = kind
        self._header_pending = False
        # Written by the walk before anything reads them: a result of one row does not clear room for a full batch.
        self._starts = np.empty(self.rows_per_batch, np.uint32)
        self._ends = np.empty(self.rows_per_batch, np.uint32)
        self._cursors = np.zeros(layout.TILE_ROWS, np.uint32)
        self._tile = np.zeros(layout.TILE_WIDTH, np.int64)
        self._sources = np.empty((max(1, plan.varlen_columns), self.rows_per_batch), np.uint32)
        self._results = np.zeros((len(plan.nodes), layout.RESULT_WIDTH), np.int64)
        self._failure = np.zeros(layout.FAILURE_WIDTH, np.int64)
        self.expect_header()

    def expect_header(self) -> None:
        """Begin a reply: a COPY starts with a header, glued to its first row."""
        self._header_pending = self._kind == wire.COPY_DATA

    def scan(self, block: Uint8s, begin: int, end: int, base: int = 0) -> Scan:
        """Find up to `rows_per_batch` rows in ``block[begin:end]``.

        Parameters
        ----------
        block : uint8 array
            At least WIRE_PAD_BYTES readable behind `end`.
        begin, end : int
            A message boundary, and the end of what was received.
        base : int
            Bytes of the reply before the block, for error messages.

        Raises
        ------
        DecodeError
            A length or a field count is impossible.
        """
        header = 0
        if self._header_pending and end - begin >= wire.MESSAGE_HEAD_BYTES and block[begin] == self._kind:
            size = header_size(block[begin : begin + HEAD_BYTES], end - begin)
            if size is None:
                return Scan(0, begin, layout.SCAN_MORE)
            header, self._header_pending = size, size == 0
        rows, position, reason = self._backend.scan(
            block, begin, end, self._kind, header, len(self._plan.names),
            self._starts, self._ends, self.rows_per_batch, self._failure,
        )  # fmt: skip
        if reason == layout.SCAN_FAILED:
            self._failure[layout.COLUMN] = -1
            raise error_of(self._failure, self._plan, self.rows, base)
        return Scan(rows, position, reason)

    def decode(self, block: Uint8s, found: Scan, base: int = 0) -> pa.RecordBatch:
        """Decode the rows of the last scan of the same block.

        Raises
        ------
        DecodeError
            The bytes break the wire format.
        ValueRangeError
            A value has no form in the Arrow type.
        """
        plan, rows = self._plan, found.rows
        wire_bytes = found.position - int(self._starts[0])
        parts = self._survey(block, rows, wire_bytes, base) if plan.nested_nodes else None
        table, data_at = plan.arrange(rows, parts.counts if parts else None)
        size = data_at + wire_bytes + layout.BUFFER_ALIGN_BYTES * plan.varlen_nodes + ARENA_SLACK_BYTES
        region = self._allocate(size)
        array = region.array
        arena = (array, array.view(np.int16), array.view(np.int32), array.view(np.int64))
        columns = len(plan.names)
        failed = self._backend.decode(
            block, found.position, self._starts, self._ends, rows, table[:columns], arena, data_at,
            self._cursors, self._tile, self._sources, self._results[:columns], self._failure,
        )  # fmt: skip
        if failed:
            raise error_of(self._failure, self._plan, self.rows, base)
        if parts:
            data_at = max(data_at, int((self._results[:columns, 1:].sum(axis=1)).max()))
            failed = self._backend.decode_parts(
                block, found.position, table, parts.places, parts.offsets, parts.counts, arena, align(data_at),
                self._cursors, self._tile, self._results, self._failure,
            )  # fmt: skip
            if failed:
                parts.climb(plan, self._failure)
                raise error_of(self._failure, self._plan, self.rows, base)
        batch = assemble(plan, table, self._results, region, rows, parts.counts if parts else None)
        self.rows += rows
        return batch

    def _survey(self, block: Uint8s, rows: int, wire_bytes: int, base: int) -> Parts:
        """Find the parts of nested columns."""
        parts = Parts.of(self._plan, max(rows, wire_bytes // 4))
        failed = self._backend.survey(
            block, self._starts, self._ends, rows, len(self._plan.names), self._plan.descriptors,
            parts.places, parts.offsets, parts.counts, self._failure,
        )  # fmt: skip
        if failed:
            parts.climb(self._plan, self._failure)
            raise error_of(self._failure, self._plan, self.rows, base)
        return parts


def header_size(head: Uint8s, received: int) -> int | None:
    """Return the size in bytes of the COPY header in a reply's first message; None if more of it must come.

    Parameters
    ----------
    head : uint8 array
        The message from its type on: HEAD_BYTES of it, or what there is.
    received : int
        Bytes received from there on.

    Returns
    -------
    int or None
        0 for a message of impossible length: the walk refuses it.
    """
    length = int.from_bytes(head[1 : wire.MESSAGE_HEAD_BYTES].tobytes(), "big", signed=True)
    if 1 + length > received:
        return None
    if length < 4:
        return 0
    return wire.copy_header_size(head[wire.MESSAGE_HEAD_BYTES : 1 + length].tobytes())


def error_of(failure: Int64s, plan: Plan, rows: int, base: int) -> DecodeError:
    """Turn a failure record into the error to raise; `rows` and `base` count what came before the block."""
    code, row, column, offset = (int(part) for part in failure)
    kind, text = (
        (ValueRangeError, RANGE_MESSAGES[code]) if code in RANGE_MESSAGES else (DecodeError, MESSAGES[code])
    )
    name = plan.names[column] if 0 <= column < len(plan.names) else None
    return kind(text, row=rows + row, column=name, offset=base + offset)
