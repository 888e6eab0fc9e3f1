"""PostgreSQL's bytes in tests: built by hand, recorded from a server, decoded without one."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from flight_server.reading import statement
from flight_server.reading.replies import decode_replies
from kernels.backend import select_backend
from kernels.column import Column
from kernels.decoder import Decoder
from kernels.errors import ConnectionLostError
from kernels.plan import Plan, TypePolicy, plan
from kernels.typing import Allocate
from transport.messages import Request
from transport.opening import SessionOptions
from transport.pool import ConnectionPool
from transport.reader import open_reader
from transport.reply import Reply
from transport.session import Session

FRAMINGS = ("copy", "extended")
ROW_KINDS = {"copy": b"d", "extended": b"D"}
COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_TRAILER = b"\xff\xff"
READY = b"Z\0\0\0\5T"

Field = bytes | None


class Memory:
    """A region that belongs to nobody but the test."""

    def __init__(self, size_bytes: int) -> None:
        base = np.full(size_bytes + 128, 0xA5, np.uint8)
        skip = -base.ctypes.data % 64
        self.array = base[skip : skip + -(-size_bytes // 64) * 64]


class Replay:
    """A reader that hands out recorded bytes, in pieces of given sizes, then says that the connection is lost."""

    name = "replay"

    def __init__(self, wire: bytes, pieces: Iterable[int] = ()) -> None:
        self._wire = memoryview(wire)
        self._pieces = iter(pieces)

    def send(self, request: Request) -> None:
        """The answer is known already."""

    def receive(self, view: memoryview) -> int:
        """Hand out the next piece."""
        if not self._wire:
            raise ConnectionLostError("the recording ends")
        count = min(len(view), len(self._wire), next(self._pieces, len(view)))
        view[:count] = self._wire[:count]
        self._wire = self._wire[count:]
        return count

    def release(self) -> None:
        """Nothing was taken."""

    def close(self) -> None:
        """Nothing is held."""


def message(kind: bytes, payload: bytes = b"") -> bytes:
    """Frame a message."""
    return kind + struct.pack("!i", len(payload) + 4) + payload


def row(fields: Sequence[Field]) -> bytes:
    """Encode a row's field count and fields."""
    parts = [struct.pack("!h", len(fields))]
    parts += [
        struct.pack("!i", -1) if field is None else struct.pack("!i", len(field)) + field for field in fields
    ]
    return b"".join(parts)


def reply(rows: Sequence[Sequence[Field]], framing: str) -> bytes:
    """Build the whole reply that PostgreSQL would send for these rows."""
    if framing == "extended":
        body = b"".join(message(b"D", row(fields)) for fields in rows)
        return message(b"1") + message(b"2") + body + message(b"C", b"SELECT %d\0" % len(rows)) + READY
    payloads = [*(row(fields) for fields in rows), COPY_TRAILER]
    payloads[0] = COPY_HEADER + payloads[0]
    body = b"".join(message(b"d", payload) for payload in payloads)
    opening = message(b"H", struct.pack("!bh", 1, 0))
    return opening + body + message(b"c") + message(b"C", b"COPY %d\0" % len(rows)) + READY


def frames(wire: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield (offset, type, payload) of each message of a sound recording."""
    at = 0
    while at < len(wire):
        size = 1 + struct.unpack_from("!i", wire, at + 1)[0]
        yield at, wire[at : at + 1], wire[at + 5 : at + size]
        at += size


def make_decoder(planned: Plan, framing: str, batch_bytes: int = 1 << 20, allocate: Allocate = Memory) -> Decoder:
    """Make a decoder for a framing."""
    kind = ROW_KINDS[framing][0]
    return Decoder(planned, select_backend(), allocate, kind=kind, batch_bytes=batch_bytes)


def decode(
    columns: Sequence[Column],
    wire: bytes,
    framing: str,
    *,
    policy: TypePolicy | None = None,
    batch_bytes: int = 1 << 20,
    block_bytes: int | None = None,
    max_row_bytes: int = 64 << 20,
    pieces: Iterable[int] = (),
    allocate: Allocate = Memory,
) -> pa.Table:
    """Decode a recorded reply as the pipeline does, without a server."""
    planned = plan(columns, policy)
    replies = Reply(
        Replay(wire, pieces),
        allocate,
        block_bytes=block_bytes or batch_bytes,
        max_row_bytes=max_row_bytes,
        check=lambda: None,
    )
    replies.send(Request("", copy=framing == "copy"))
    decoder = make_decoder(planned, framing, batch_bytes, allocate)
    return pa.Table.from_batches(decode_replies(replies, decoder, copy=framing == "copy"), planned.schema)


def stream(
    pool: ConnectionPool,
    allocate: Allocate,
    sql: str,
    *,
    framing: str = "extended",
    reader: str = "auto",
    batch_bytes: int = 1 << 20,
    max_row_bytes: int = 64 << 20,
    check: Callable[[], None] = lambda: None,
    started: Callable[[Session], None] = lambda session: None,
) -> Iterator[pa.RecordBatch]:
    """Read a statement lazily; `started` sees the session once the request is sent."""
    options = SessionOptions(block_bytes=batch_bytes, max_row_bytes=max_row_bytes, reader=reader)
    with Session(pool, options) as session:
        planned = plan(session.describe(sql))
        asked = statement.binary_request(statement.with_casts(sql, planned.casts), (), framing)
        replies = session.run(asked, allocate, check)
        started(session)
        yield from decode_replies(
            replies, make_decoder(planned, framing, batch_bytes, allocate), copy=framing == "copy"
        )


def record(
    pool: ConnectionPool, sql: str, framing: str, policy: TypePolicy | None = None
) -> tuple[tuple[Column, ...], bytes]:
    """Return the columns of a statement and the bytes of its whole reply, as the server sent them."""
    with Session(pool, SessionOptions()) as session:
        columns = session.describe(sql)
        request = statement.binary_request(statement.with_casts(sql, plan(columns, policy).casts), (), framing)
        connection = session._connection
        reader = open_reader(connection)
        reader.send(request)
        piece, received = bytearray(1 << 16), b""
        while not _ended(received):
            received += piece[: reader.receive(memoryview(piece))]
        reader.release()
    return columns, received


def _ended(wire: bytes) -> bool:
    at, kind = 0, b""
    while at + 5 <= len(wire):
        size = 1 + struct.unpack_from("!i", wire, at + 1)[0]
        if at + size > len(wire):
            return False
        kind = wire[at : at + 1]
        at += size
    return kind == b"Z" and at == len(wire)
