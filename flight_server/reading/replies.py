"""Replies -> batches: the loop that joins transport and kernels, and proves that each reply was whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from flight_server.reading.stages import Stages
from kernels import layout
from kernels.decoder import Scan
from kernels.errors import DecodeError
from kernels.typing import Uint8s
from transport.reply import Reply


class RowDecoder(Protocol):
    """Finds and decodes the rows of blocks; each twin of the kernels has one."""

    @property
    def rows(self) -> int:
        """Rows decoded so far."""

    def expect_header(self) -> None:
        """Begin a reply."""

    def scan(self, block: Uint8s, begin: int, end: int, base: int = 0) -> Scan:
        """Find rows in ``block[begin:end]``."""

    def decode(self, block: Uint8s, found: Scan, base: int = 0) -> Any:
        """Decode the rows of the last scan: a record batch, or what stands for one (it has `num_rows`)."""


def decode_replies(
    reply: Reply,
    decoder: RowDecoder,
    *,
    copy: bool,
    piece_bytes: int | None = None,
    on_complete: Callable[[], None] = lambda: None,
    stages: Stages | None = None,
) -> Iterator[Any]:
    """Turn replies into batches, block by block, and prove each to be whole.

    A reply is whole when its chain of messages led to ReadyForQuery, CommandComplete was among them with the
    number of rows that were decoded, and a COPY ended with its trailer at a row boundary.

    Parameters
    ----------
    reply : Reply
        With at least one request sent.
    decoder : RowDecoder
    copy : bool
        Whether the replies are COPY streams.
    piece_bytes : int, optional
        Cut the decoder's batches into pieces of about this size.
    on_complete : callable
        Called after each whole reply; it may send the next request.
    stages : Stages, optional
        Where the time goes is added up there.
    """
    timed = stages or Stages()
    rows, trailer = decoder.rows, False
    timed.start()
    while reply.outstanding:
        reply.fill()
        timed.end("receive")
        while reply.outstanding:
            found = decoder.scan(reply.block, reply.begin, reply.end, reply.base)
            timed.end("scan")
            if trailer and (found.rows or found.reason == layout.SCAN_TRAILER):
                raise DecodeError("rows after the COPY trailer", offset=reply.base + reply.begin)
            if found.rows:
                batch = decoder.decode(reply.block, found, reply.base)
                timed.end("decode")
                yield from slices(batch, piece_bytes)
                timed.end("hand out")
                del batch  # its memory is the client's to give back
            reply.begin = found.position
            if found.reason == layout.SCAN_TRAILER:
                trailer = True
            elif found.reason == layout.SCAN_MESSAGE:
                if reply.message():
                    reply.require_complete(decoder.rows - rows, trailer=trailer if copy else None)
                    rows, trailer = decoder.rows, False
                    decoder.expect_header()
                    on_complete()
            elif found.reason == layout.SCAN_MORE:
                break


def slices(batch: Any, piece_bytes: int | None) -> Iterator[Any]:
    """Cut a batch into pieces of about the size wanted, without copying."""
    pieces = batch.nbytes // piece_bytes if piece_bytes else 1
    if pieces < 2:
        yield batch
        return
    rows = -(-batch.num_rows // pieces)
    for first in range(0, batch.num_rows, rows):
        yield batch.slice(first, rows)
