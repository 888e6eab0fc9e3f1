"""One statement run once for each row of parameters, in one transaction, its replies in one stream."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import pyarrow as pa

from flight_server.reading import statement
from flight_server.reading.decoding import Consumer, Decoding, side_of
from flight_server.reading.planning import Prepared
from flight_server.reading.replies import decode_replies
from flight_server.reading.tally import Tally
from flight_server.request import ReadRequest
from transport.messages import Request
from transport.modes.moving import Moving
from transport.reply import Reply
from transport.session import Session

AHEAD_BYTES = 16 << 10
"""Requests sent ahead of their turn, at most: fewer than any socket buffers, so that sending never waits for a
PostgreSQL that itself waits for its replies to be read."""
ARENAS_HELD = 16
"""Small batches are joined in groups of so many: each lies in an arena of the server's memory until then."""


def repeated(
    request: ReadRequest,
    prepared: Prepared,
    session: Session,
    decoding: Decoding,
    consumer: Consumer,
    tally: Tally,
    moving: Moving,
) -> Iterator[pa.RecordBatch]:
    """Run a statement once for each of `request.rows`; yield the rows of all runs, one after the other."""
    limit = request.options.batch_target()
    runs = _runs(request, prepared, session, decoding, consumer, tally, moving)
    return _joined(_joined(runs, limit, ARENAS_HELD), limit)


def _runs(
    request: ReadRequest,
    prepared: Prepared,
    session: Session,
    decoding: Decoding,
    consumer: Consumer,
    tally: Tally,
    moving: Moving,
) -> Iterator[pa.RecordBatch]:
    text = statement.with_casts(statement.select(request), prepared.plan.casts)
    batch_bytes, rows = request.options.batch_target(), request.rows or ()
    decoder = decoding.decoder(prepared.plan, copy=False, batch_bytes=batch_bytes, consumer=consumer)
    reply = session.open_reply(decoding.allocate, consumer.check, moving.to(side_of(decoder)))
    tally.watch.hang_up = session.hang_up
    runs = _Runs(reply, [Request(text, copy=False, parameters=row) for row in rows])
    runs.send()
    for batch in decode_replies(
        reply,
        decoder,
        copy=False,
        piece_bytes=decoding.piece_bytes(batch_bytes),
        on_complete=runs.on_complete,
        stages=tally.stages,
    ):
        tally.rows, tally.wire_bytes = decoder.rows, reply.received_bytes
        yield batch
    tally.wire_bytes = reply.received_bytes
    tally.facts |= {"reader": session.reader_name, "framing": "extended", "runs": len(rows)}
    session.finish()


class _Runs:
    """Requests that are sent one behind the other, a few ahead of their turn."""

    def __init__(self, reply: Reply, requests: list[Request]) -> None:
        self._reply = reply
        self._waiting = deque(requests)
        self._ahead: deque[int] = deque()
        self._ahead_bytes = 0

    def send(self) -> None:
        """Send what may be sent."""
        while self._waiting:
            size = len(self._waiting[0].encode())
            if self._ahead and self._ahead_bytes + size > AHEAD_BYTES:
                return
            self._reply.send(self._waiting.popleft())
            self._ahead.append(size)
            self._ahead_bytes += size

    def on_complete(self) -> None:
        """Go on: a request's reply is over."""
        self._ahead_bytes -= self._ahead.popleft()
        self.send()


def _joined(
    batches: Iterator[pa.RecordBatch], limit_bytes: int, limit_count: int = 1 << 30
) -> Iterator[pa.RecordBatch]:
    """Join batches that follow one another, up to a size and a number of them."""
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        if held and (size + batch.nbytes > limit_bytes or len(held) == limit_count):
            yield _one(held)
            held, size = [], 0
        held.append(batch)
        size += batch.nbytes
    if held:
        yield _one(held)


def _one(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)
