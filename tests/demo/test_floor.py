"""The floor drains whole streams, and says so when one is not whole."""

import psycopg
import pytest

from demo import lineorder
from demo.floor import FloorError, copy_statements, drain, floor_seconds
from demo.postgres import EmbeddedPostgres

ROWS = 20_000
FRAME_BYTES = 5  # in front of every CopyData message


def copied(dsn: str, statement: str) -> list[bytes]:
    with psycopg.connect(dsn) as connection, connection.cursor().copy(statement.encode()) as copy:
        return [bytes(data) for data in copy]


@pytest.mark.parametrize("streams", [1, 2, 5])
def test_statements_cover_the_table_once(server: EmbeddedPostgres, streams: int) -> None:
    lineorder.fill(server.dsn(), ROWS)
    statements = copy_statements(server.dsn(), "lineorder", streams)
    assert len(statements) == streams
    messages = [copied(server.dsn(), statement) for statement in statements]
    assert sum(len(rows) - 1 for rows in messages) == ROWS  # the last one is the trailer
    assert min(len(rows) for rows in messages) > 1


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_every_byte_is_drained(server: EmbeddedPostgres, unix: bool) -> None:
    lineorder.fill(server.dsn(), ROWS)
    (statement,) = copy_statements(server.dsn(), "lineorder", 1)
    payload = sum(len(data) + FRAME_BYTES for data in copied(server.dsn(), statement))
    ends = len(b"H....." + bytes(2 + 2 * 17)) + len(b"c....") + len(b"C....COPY 20000.") + len(b"Z.....")
    drained = drain(server.dsn(unix=unix), statement)
    assert drained.bytes == payload + ends
    assert drained.seconds > 0


def test_streams_are_drained_together(server: EmbeddedPostgres) -> None:
    lineorder.fill(server.dsn(), ROWS)
    statements = copy_statements(server.dsn(), "lineorder", 3)
    assert drain(server.dsn(), *statements).bytes > 140 * ROWS
    assert floor_seconds(server.dsn(), *statements) > 0


@pytest.mark.parametrize(
    "query", ["SELECT 1/0", "SELECT i, 1 / (5000 - i) FROM generate_series(1, 9000) AS i", "SELECT nonsense"]
)
def test_a_failed_stream_has_no_time(server: EmbeddedPostgres, query: str) -> None:
    with pytest.raises(FloorError, match="did not complete"):
        drain(server.dsn(), f"COPY ({query}) TO STDOUT (FORMAT BINARY)")
