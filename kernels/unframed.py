"""Rows without frames: a file that PostgreSQL's COPY wrote, followed by the messages that it answered with."""

from __future__ import annotations

from typing import Any

from kernels import layout, wire
from kernels.decoder import Decoder, Scan, error_of
from kernels.plan import Plan
from kernels.typing import Allocate, Backend, Uint8s


class UnframedDecoder(Decoder):
    """Decodes the rows of a COPY BINARY file.

    What does not begin with COPY's signature, and what follows its trailer, are messages.

    Parameters
    ----------
    plan, backend, allocate, batch_bytes
        As for `Decoder`.
    walk : callable
        The twin's scan of rows without frames.
    """

    def __init__(self, plan: Plan, backend: Backend, allocate: Allocate, walk: Any, *, batch_bytes: int) -> None:
        super().__init__(plan, backend, allocate, kind=wire.COPY_DATA, batch_bytes=batch_bytes)
        self._walk = walk

    def expect_header(self) -> None:
        """Begin a file."""
        self._at_header, self._in_rows = True, False

    def scan(self, block: Uint8s, begin: int, end: int, base: int = 0) -> Scan:
        """Find rows in ``block[begin:end]``; as `Decoder.scan`."""
        if self._at_header and end > begin:
            if block[begin] != wire.COPY_SIGNATURE[0]:
                self._at_header = False
            else:
                if end - begin < wire.COPY_HEADER_BYTES:
                    return Scan(0, begin, layout.SCAN_MORE)
                begin += wire.copy_header_size(block[begin:end][: 1 << 16].tobytes())
                self._at_header, self._in_rows = False, True
        if not self._in_rows:
            return _message(block, begin, end)
        rows, position, reason = self._walk(
            block, begin, end, len(self._plan.names), self._starts, self._ends, self.rows_per_batch, self._failure
        )
        if reason == layout.SCAN_FAILED:
            self._failure[layout.COLUMN] = -1
            raise error_of(self._failure, self._plan, self.rows, base)
        self._in_rows = reason != layout.SCAN_TRAILER
        return Scan(rows, position, reason)


def _message(block: Uint8s, begin: int, end: int) -> Scan:
    if end - begin < wire.MESSAGE_HEAD_BYTES:
        return Scan(0, begin, layout.SCAN_MORE)
    size = 1 + int.from_bytes(block[begin + 1 : begin + wire.MESSAGE_HEAD_BYTES].tobytes(), "big")
    return Scan(0, begin, layout.SCAN_MESSAGE if begin + size <= end else layout.SCAN_MORE)
