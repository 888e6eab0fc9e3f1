"""The floors: PostgreSQL's rows received by the server's own reader, neither walked nor decoded.

A stream is received as the server receives it: over connections that are open already, the same session (BEGIN,
snapshot), the same reader, one block of the same size filled again and again.  Of each full block only the last bytes
are looked at, for the two messages that end a reply; the number of rows that CommandComplete claims must be the table's.
"""

from __future__ import annotations

import atexit
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from benchmark.target import Drained, Target
from transport.memory import RegionPool
from transport.messages import Request
from transport.opening import SessionOptions
from transport.partition import PageRange
from transport.pool import ConnectionPool, PoolOptions
from transport.reply import Reply
from transport.session import Session

MEMORY_BYTES = 64 << 20
TAIL_BYTES = 64
END = re.compile(rb"(?:c\x00{3}\x04)?C\x00{3}.(?:COPY|SELECT) \d+\x00Z\x00{3}\x05[ITE]\Z", re.DOTALL)
"""CopyDone, CommandComplete and ReadyForQuery, as the last bytes that were received."""


class FloorError(RuntimeError):
    """A stream did not end as a whole: its time means nothing."""


def copy(target: Target) -> Iterator[Drained]:
    """One stream of COPY."""
    return _single(target, Request(_copied(target.sql), copy=True))


def data_rows(target: Target) -> Iterator[Drained]:
    """One stream of the extended protocol's rows."""
    return _single(target, Request(target.sql, copy=False))


def copy_ranges(target: Target) -> Iterator[Drained]:
    """Several streams of COPY, each an equal range of the table's pages."""
    return _parallel(target, lambda sql: Request(_copied(sql), copy=True))


def data_row_ranges(target: Target) -> Iterator[Drained]:
    """Several streams of the extended protocol's rows, each an equal range of the table's pages."""
    return _parallel(target, lambda sql: Request(sql, copy=False))


def drop(reply: Reply) -> int:
    """Drop all but the end of the block; or read the reply's last messages there and return how many rows it had."""
    tail_at = max(reply.begin, reply.end - TAIL_BYTES)
    found = END.search(reply.block[tail_at : reply.end].tobytes())
    if found is None:
        reply.begin = tail_at  # they may have come in part
        return 0
    reply.begin = tail_at + found.start()
    while not reply.message():
        pass
    return reply.command_rows or 0


def _single(target: Target, request: Request) -> Iterator[Drained]:
    yield from _require_rows(_drain(_pool(target.dsn, 1), request), target)


def _parallel(target: Target, request: Callable[[str], Request]) -> Iterator[Drained]:
    count = target.streams
    pool = _pool(target.dsn, count)
    requests = [request(f"{target.sql} WHERE {part.condition}") for part in _ranges(pool, target)]
    with ThreadPoolExecutor(count) as threads:
        streams = threads.map(lambda each: list(_drain(pool, each)), requests)
        yield from _require_rows((piece for stream in streams for piece in stream), target)


@cache
def _pool(dsn: str, count: int) -> ConnectionPool:
    """Open connections for all reads of this process: the server's, too, are open before the clock starts."""
    pool = ConnectionPool(dsn, PoolOptions(max_connections=count))
    atexit.register(pool.close)
    for connection in pool.take(count):
        pool.give_back(connection)
    return pool


def _drain(pool: ConnectionPool, request: Request) -> Iterator[Drained]:
    """Receive one reply block by block, and drop it."""
    options = SessionOptions()
    memory = RegionPool(MEMORY_BYTES)
    with Session(pool, options) as session:
        reply = session.run(request, memory.allocate, lambda: None)
        received = 0
        while reply.outstanding:
            reply.fill()
            rows = drop(reply)
            yield Drained(rows, reply.received_bytes - received)
            received = reply.received_bytes
        session.finish()


def _require_rows(pieces: Iterator[Drained], target: Target) -> Iterator[Drained]:
    rows = 0
    for piece in pieces:
        rows += piece.num_rows
        yield piece
    if rows != target.rows:
        raise FloorError(f"PostgreSQL sent {rows} rows of {target.table}, not {target.rows}")


def _ranges(pool: ConnectionPool, target: Target) -> list[PageRange]:
    """Cut the table into as many ranges of pages as there are streams."""
    with Session(pool, SessionOptions()) as session:
        (leaf,), _ = session.leaves(target.table)
    begins = [leaf.pages * number // target.streams for number in range(target.streams)]
    return [PageRange(leaf, begin, end) for begin, end in zip(begins, [*begins[1:], None], strict=True)]


def _copied(sql: str) -> str:
    return f"COPY ({sql}) TO STDOUT (FORMAT BINARY)"
