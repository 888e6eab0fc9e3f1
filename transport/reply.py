"""Replies of PostgreSQL in one block of memory: fill it, walk past what is not a row, prove each end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NoReturn

import numpy as np
import structlog

from kernels.errors import ConnectionLostError, DecodeError, OverloadedError, PostgresError
from kernels.typing import Allocate, Region, Uint8s
from transport import messages
from transport.failures import lost_or_refused
from transport.messages import (
    BIND_COMPLETE,
    COMMAND_COMPLETE,
    COPY_DONE,
    COPY_OUT_RESPONSE,
    ERROR_RESPONSE,
    NOTICE_RESPONSE,
    NOTIFICATION_RESPONSE,
    PARAMETER_STATUS,
    PARSE_COMPLETE,
    READY_BYTES,
    READY_FOR_QUERY,
    ROW_DESCRIPTION,
    Request,
)
from transport.reader import Reader

log = structlog.get_logger("pgflight.transport")

HAND_ON_AFTER_S = 0.05
"""A block that is not full is handed on this long after its first byte: a trickling query stays visible."""
PAD_BYTES = 64
"""Readable bytes that the kernels may load behind the end of the block."""
MESSAGE_HEAD_BYTES = 5
EXPECTED = frozenset((COPY_OUT_RESPONSE, COPY_DONE, ROW_DESCRIPTION, PARSE_COMPLETE, BIND_COMPLETE))


class Reply:
    """The bytes of one reply, or of several asked for one after the other, block by block.

    The rows between `begin` and `end` of `block` are the caller's to walk; it moves `begin` behind what it has
    used, calls `message` for a message that is not a row, and `fill` when it needs more.

    Parameters
    ----------
    reader : Reader
    allocate : Allocate
        Where the block comes from.
    block_bytes : int
        Size of the block.  A row that does not fit makes it grow.
    max_row_bytes : int
        How far it may grow.
    check : callable
        Called while waiting, at least every 0.1 s; raises to give up.
    patience_s : float
        A block that is not full is handed on so long after its first byte; the very first one sooner.
    """

    def __init__(
        self,
        reader: Reader,
        allocate: Allocate,
        *,
        block_bytes: int,
        max_row_bytes: int,
        check: Callable[[], None],
        patience_s: float = HAND_ON_AFTER_S,
    ) -> None:
        self._reader = reader
        self._allocate = allocate
        self._max_row_bytes = max_row_bytes
        self._check = check
        self._patience_s = min(patience_s, HAND_ON_AFTER_S)
        self._patience_later_s = patience_s
        self._failure: PostgresError | None = None
        self._lost: ConnectionLostError | None = None
        self._region = allocate(block_bytes + PAD_BYTES)
        self._capacity = block_bytes
        self.begin = 0
        self.end = 0
        self.base = 0
        """Bytes of the reply before the block."""
        self.received_bytes = 0
        self.outstanding = 0
        """Requests whose ReadyForQuery has not come yet."""
        self.status: str | None = None
        """Transaction status of the last ReadyForQuery (``I``, ``T`` or ``E``); None before the first."""
        self.command_rows: int | None = None
        self._forget_command()

    @property
    def block(self) -> Uint8s:
        """The block; readable PAD_BYTES beyond `end`."""
        return self._region.array

    def send(self, request: Request) -> None:
        """Send a request; its reply follows those of the requests sent before."""
        self.outstanding += 1  # first: what was sent in part must be read, or the connection closed
        self._reader.send(request)

    def fill(self) -> None:
        """Move what is left to the front and receive more: a full block, or what comes in 50 ms, or the end."""
        if self._lost is not None:
            self._raise(self._lost)
        self._make_room()
        view = memoryview(self.block.data)
        deadline: float | None = None
        while self.end < self._capacity:
            self._check()
            try:
                count = self._reader.receive(view[self.end : self._capacity])
            except ConnectionLostError as failure:
                # PostgreSQL says why before it hangs up; only the caller's walk finds that message.
                if self.end > self.begin:
                    self._lost = failure
                    return
                raise
            self.end += count
            self.received_bytes += count
            if count and deadline is None:
                deadline = time.monotonic() + self._patience_s
            if deadline is not None and (self._may_be_over() or time.monotonic() >= deadline):
                self._patience_s = self._patience_later_s
                return
        self._patience_s = self._patience_later_s

    def message(self) -> bool:
        """Read the message at `begin`, which is not a row, and move behind it.

        Returns
        -------
        bool
            Whether it was ReadyForQuery: the reply is over, and `require_complete` tells whether it is whole.

        Raises
        ------
        PostgresError
            PostgreSQL reported an error; raised only when ReadyForQuery followed it.
        DecodeError
            A message that has no place in a reply.
        """
        kind = int(self.block[self.begin])
        size = 1 + int.from_bytes(self.block[self.begin + 1 : self.begin + 5].tobytes(), "big")
        payload = self.block[self.begin + 5 : self.begin + size].tobytes()
        offset = self.base + self.begin
        self.begin += size
        if kind == READY_FOR_QUERY:
            self._ready(payload)
        elif kind == ERROR_RESPONSE:
            self._failure = self._failure or messages.error(messages.fields(payload))
        elif kind == COMMAND_COMPLETE:
            self.command_complete = True
            self.command_rows = messages.row_count(payload)
        elif kind == NOTICE_RESPONSE:
            parts = messages.fields(payload)
            log.info("notice", severity=parts.get("S"), sqlstate=parts.get("C"), message=parts.get("M"))
        elif kind == COPY_DONE:
            self.copy_done = True
        elif kind == PARAMETER_STATUS:
            self._parameter(payload)
        elif kind not in (NOTIFICATION_RESPONSE, *EXPECTED):
            raise DecodeError(f"unexpected message {chr(kind)!r} in the reply", offset=offset)
        return kind == READY_FOR_QUERY

    def require_complete(self, rows: int, *, trailer: bool | None) -> None:
        """Prove that the reply that just ended is whole: CommandComplete, and as many rows as it claims.

        Parameters
        ----------
        rows : int
            Rows that were decoded.
        trailer : bool or None
            Whether COPY's trailer was read at a row boundary; None where the reply is no COPY.

        Raises
        ------
        DecodeError
            It did not: rows are missing or were made up.
        """
        if not self.command_complete:
            raise DecodeError(f"the reply ended without CommandComplete after {rows} rows")
        if self.command_rows is not None and self.command_rows != rows:
            raise DecodeError(f"PostgreSQL sent {self.command_rows} rows, {rows} were read")
        if trailer is not None and not (trailer and self.copy_done):
            raise DecodeError(f"COPY ended without its trailer after {rows} rows")
        self._forget_command()

    def drain(self) -> None:
        """Read what is outstanding to its end, and drop it: rows, errors and all, whoever still wants it."""
        self._check = _nothing
        skip = 0  # bytes of a message that is longer than the block
        while self.outstanding:
            while self.outstanding and self.end - self.begin > skip + MESSAGE_HEAD_BYTES:
                self.begin, skip = self.begin + skip, 0
                head = self.block[self.begin : self.begin + MESSAGE_HEAD_BYTES + 1].tobytes()
                size = 1 + int.from_bytes(head[1:MESSAGE_HEAD_BYTES], "big")
                if head[0] == READY_FOR_QUERY:
                    self.outstanding -= 1
                    self.status = chr(head[MESSAGE_HEAD_BYTES])
                skip = size
            taken = min(skip, self.end - self.begin)
            self.begin, skip = self.begin + taken, skip - taken
            if self.outstanding:
                self.fill()

    def release(self) -> None:
        """Give the connection back to libpq; only when nothing is outstanding."""
        self._reader.release()

    def close(self) -> None:
        """Drop the reader; the connection must be closed."""
        self._reader.close()

    def _parameter(self, payload: bytes) -> None:
        """Notice that the statement changed the encoding its text came in.

        PostgreSQL reports that only once the rows are sent.  A statement that changes it and changes it back is
        not reported at all; that its bytes are still valid UTF-8 is all that can be checked then.
        """
        name, _, value = payload.rstrip(b"\0").partition(b"\0")
        if name == b"client_encoding" and value.upper() not in (b"UTF8", b"UTF-8"):
            encoding = value.decode("utf-8", "replace")
            self._failure = self._failure or PostgresError(
                f"the statement changed client_encoding to {encoding}: its text cannot be trusted", "22021"
            )

    def _forget_command(self) -> None:
        self.copy_done = False
        self.command_rows = None
        self.command_complete = False

    def _ready(self, payload: bytes) -> None:
        self.outstanding -= 1
        self.status = payload.decode("ascii", "replace")
        if self._failure is not None:
            self._raise(self._failure)

    def _raise(self, failure: PostgresError | ConnectionLostError) -> NoReturn:
        """Raise what was found, and let go of it: through its traceback it would keep this block alive."""
        reported, self._failure, self._lost = self._failure, None, None
        error = failure if reported is None else lost_or_refused(reported)
        try:
            raise error
        finally:
            del self, reported, failure, error  # this frame is in the traceback too

    def _may_be_over(self) -> bool:
        """Tell whether the last bytes look like ReadyForQuery: a hint to stop waiting, never a proof."""
        tail = self.block[max(self.begin, self.end - READY_BYTES) : self.end].tobytes()
        return len(tail) == READY_BYTES and tail[:5] == b"Z\0\0\0\5"

    def _make_room(self) -> None:
        left = self.end - self.begin
        if left == self._capacity:
            self._grow(left)
        elif self.begin:
            # NumPy moves overlapping bytes correctly.
            self.block[:left] = self.block[self.begin : self.end]
        self.base += self.begin
        self.begin, self.end = 0, left

    def _grow(self, left: int) -> None:
        """A row larger than the block: take a block of twice the size."""
        if self._capacity >= self._max_row_bytes:
            raise OverloadedError(
                f"a row exceeds {self._max_row_bytes} bytes, the server's limit (max_row_mib): select fewer or "
                "shorter columns"
            )
        self._capacity = min(self._capacity * 2, self._max_row_bytes)
        larger: Region = self._allocate(self._capacity + PAD_BYTES)
        np.copyto(larger.array[:left], self.block[:left])
        self._region = larger


def _nothing() -> None:
    """Wait, whoever still wants it."""
