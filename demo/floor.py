"""The floor under every figure: PostgreSQL's own COPY streams, drained with nothing decoded."""

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psycopg
from psycopg import sql

from transport.messages import Request
from transport.reader import open_reader

BLOCK_BYTES = 1 << 20
TAIL_BYTES = 64

READY = re.compile(rb"Z\x00\x00\x00\x05[ITE]$")
COMPLETE = re.compile(rb"C\x00\x00\x00.COPY \d+\x00Z\x00\x00\x00\x05[IT]$", re.DOTALL)


class FloorError(RuntimeError):
    """A stream did not end as a whole: its time means nothing."""


@dataclass(frozen=True)
class Drained:
    """COPY streams that nobody looked at: how long PostgreSQL took to send them, and their length."""

    seconds: float
    bytes: int


def floor_seconds(dsn: str, *statements: str) -> float:
    """Time ``COPY … TO STDOUT`` statements, run at once, each drained with nothing decoded."""
    return drain(dsn, *statements).seconds


def drain(dsn: str, *statements: str) -> Drained:
    """Run ``COPY … TO STDOUT`` statements at once, each on its own connection, and drop what they send."""
    started = time.perf_counter()
    with ThreadPoolExecutor(len(statements)) as pool:
        received = sum(pool.map(lambda statement: _drain_one(dsn, statement), statements))
    return Drained(time.perf_counter() - started, received)


def copy_statements(dsn: str, table: str, streams: int) -> list[str]:
    """Statements that together copy a table, each a range of its pages; a single one copies it whole."""
    name = sql.Identifier(table)
    if streams == 1:
        return [sql.SQL("COPY {} TO STDOUT (FORMAT BINARY)").format(name).as_string()]
    with psycopg.connect(dsn) as connection:
        size = connection.execute(
            "SELECT pg_relation_size(%s) / current_setting('block_size')::int8", [name.as_string()]
        )
        (pages,) = size.fetchone() or (0,)
    return [
        sql.SQL("COPY (SELECT * FROM {} WHERE {}) TO STDOUT (FORMAT BINARY)").format(name, condition).as_string()
        for condition in _page_ranges(int(pages), streams)
    ]


def _page_ranges(pages: int, streams: int) -> Iterator[sql.Composable]:
    for number in range(streams):
        first = sql.Literal(f"({pages * number // streams},0)")
        condition = sql.SQL("ctid >= {}::tid").format(first)
        if number < streams - 1:  # the last range is open: the table may have grown
            beyond = sql.Literal(f"({pages * (number + 1) // streams},0)")
            condition = sql.SQL("{} AND ctid < {}::tid").format(condition, beyond)
        yield condition


def _drain_one(dsn: str, statement: str) -> int:
    """Receive a reply with the server's own reader, the fastest there is; look only at how it ends."""
    block = memoryview(bytearray(BLOCK_BYTES))
    received, tail = 0, b""
    with psycopg.connect(dsn) as connection:
        reader = open_reader(connection)
        reader.send(Request(statement, copy=True))
        while not READY.search(tail):
            count = reader.receive(block)
            received += count
            tail = (tail + bytes(block[max(count - TAIL_BYTES, 0) : count]))[-TAIL_BYTES:]
        reader.release()
    if not COMPLETE.search(tail):
        msg = f"PostgreSQL did not complete {statement!r}"
        raise FloorError(msg)
    return received
