"""What arrives is what PostgreSQL sent, through every reader and in both framings."""

from __future__ import annotations

import threading

import psycopg
import pytest
from psycopg import sql

from kernels.errors import DecodeError, PostgresError
from tests.helpers import wire
from transport.opening import SessionOptions
from transport.pool import ConnectionPool
from transport.session import Session

READY = b"Z\0\0\0\5I"
ENDS = READY + b"C\0\0\0\rSELECT 1\0" + b"c\0\0\0\4" + b"d\0\0\0\6\xff\xff" + READY
ROWS = 100_000


def test_reader_in_use(route) -> None:
    """The suite below tests what its name says."""
    seen = []
    list(route.stream("select 1", started=lambda session: seen.append(session.reader_name)))
    assert seen == [route.name]


def test_small(route) -> None:
    table = route.read("select 1 as a, 'é' as b, null::int8 as c")
    assert table.to_pylist() == [{"a": 1, "b": "é", "c": None}]


def test_empty(route) -> None:
    table = route.read("select 1 as a, 'x' as b where false")
    assert (table.num_rows, table.column_names) == (0, ["a", "b"])


def test_many_short_replies(route) -> None:
    """The connection is used again and again, never replaced."""
    pids = {route.pid() for _ in range(20)}
    assert len(pids) == 1


def test_large(route) -> None:
    """Many blocks; every row once, in order."""
    table = route.read(f"select g, g * 1.5::float8 as f, 'row ' || g as t from generate_series(1, {ROWS}) g")
    assert table.column("g").to_pylist() == list(range(1, ROWS + 1))
    assert table.column("t")[ROWS - 1].as_py() == f"row {ROWS}"
    assert table.column("f")[1].as_py() == 3.0


@pytest.mark.slow
def test_very_large(route) -> None:
    """Larger than the memory budget: batches are given back as they are used."""
    rows = 0
    for batch in route.stream("select g, repeat('x', 100) as t from generate_series(1, 8000000) g"):
        rows += batch.num_rows
        del batch
    assert rows == 8_000_000


def test_long_rows(route) -> None:
    """10 MB each, in blocks of 64 KiB."""
    table = route.read("select g, repeat(chr(64 + g), 10000000) as t from generate_series(1, 3) g")
    assert [len(value.as_buffer()) for value in table.column("t")] == [10_000_000] * 3
    assert [value.as_buffer()[9_999_999:].to_pybytes() for value in table.column("t")] == [b"A", b"B", b"C"]


@pytest.mark.parametrize("count", [1, 3, 20_000])
def test_rows_that_look_like_the_end(route, count: int) -> None:
    """Bytes of ReadyForQuery and CommandComplete at the end of every block prove nothing."""
    content = ENDS * count
    query = sql.SQL("select g, {}::bytea as b from generate_series(1, 5) g").format(sql.Literal(content))
    table = route.read(query.as_string())
    assert table.column("b").to_pylist() == [content] * 5


def test_rows_that_look_like_the_end_one_by_one(route) -> None:
    """Rows as short as the message itself: any read may end with one."""
    query = sql.SQL("select {}::bytea as b from generate_series(1, 50000) g").format(sql.Literal(READY))
    table = route.read(query.as_string())
    assert table.num_rows == 50_000
    assert set(table.column("b").to_pylist()) == {READY}


def test_notices_in_between(route, scratch) -> None:
    scratch.execute(
        "create function scratch.noisy(n int) returns int language plpgsql as "
        "$$ begin raise notice 'row % é %', n, repeat('x', n); return n; end $$"
    )
    table = route.read("select scratch.noisy(g) as n from generate_series(1, 2000) g")
    assert table.column("n").to_pylist() == list(range(1, 2001))


def test_notifications_in_between(route, scratch) -> None:
    """Nobody asked for them here, but a session may have been told to listen."""
    (connection,) = route.pool.take()
    connection.execute("listen news")
    scratch.execute("select pg_notify('news', 'é')")
    route.pool.give_back(connection)
    assert route.read("select 1 as a").to_pylist() == [{"a": 1}]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TimeZone", "Asia/Tokyo"),
        ("DateStyle", "German"),
        ("application_name", "é"),
        ("IntervalStyle", "iso_8601"),
    ],
)
def test_parameters_set_within_a_query(route, name: str, value: str) -> None:
    """ParameterStatus in the reply; values are binary and do not depend on it, and the next user starts anew."""
    before = route.read(f"select current_setting('{name}') as v").to_pylist()
    query = (
        f"select set_config('{name}', '{value}', false) as s, timestamptz '2000-01-01 00:00+00' as z"
        " from generate_series(1, 3) g"
    )
    assert route.read(query).column("z").cast("int64").to_pylist() == [946_684_800_000_000] * 3
    assert route.read(f"select current_setting('{name}') as v").to_pylist() == before != [{"v": value}]


@pytest.mark.parametrize("text", ["é", "Ã©", "naïve Ωμέγα", "ascii"])
def test_encoding_switched_within_a_query(route, text: str) -> None:
    """An error or the right text; bytes of LATIN1 that are UTF-8 of something else are neither."""
    query = f"select set_config('client_encoding', 'LATIN1', false) as s, '{text}' as t"
    try:
        table = route.read(query)
    except (PostgresError, DecodeError):
        pass
    else:
        assert table.column("t").to_pylist() == [text]
    assert route.read(f"select '{text}' as t").to_pylist() == [{"t": text}]


@pytest.mark.xfail(
    strict=True, reason="PostgreSQL reports a parameter only if it differs at the end of the statement"
)
def test_encoding_switched_to_and_fro(route) -> None:
    encoding = "case g when 1 then 'LATIN1' else 'UTF8' end"
    query = f"select set_config('client_encoding', {encoding}, false) as s, 'Ã©' as t from generate_series(1, 2) g"
    try:
        values = route.read(query).column("t").to_pylist()
    except (PostgresError, DecodeError):
        return
    assert values == ["Ã©", "Ã©"]


def test_a_trickle_is_handed_on(route) -> None:
    """Rows that have come are not kept back for a full block."""
    rows = route.stream(  # the first row is longer than the 8 KiB that PostgreSQL itself keeps
        "select repeat('x', 20000) as t, case g when 2 then pg_sleep(20) end as s from generate_series(1, 2) g"
    )
    assert next(rows).num_rows == 1
    rows.close()


@pytest.mark.parametrize("framing", ["extended"])
def test_parameters_of_the_request(route) -> None:
    """Text parameters; COPY takes none."""
    request = wire.Request(
        "select $1::int4 + 1 as a, $2::text as b, $3::text as c", copy=False, parameters=("41", "é\n'", None)
    )
    with Session(route.pool, SessionOptions(reader=route.options["reader"])) as session:
        columns = session.describe(request.sql, parameters=3)
        replies = session.run(request, route.memory.allocate, lambda: None)
        decoder = wire.make_decoder(wire.plan(columns), "extended", allocate=route.memory.allocate)
        batches = list(wire.decode_replies(replies, decoder, copy=False))
    assert [batch.to_pylist() for batch in batches] == [[{"a": 42, "b": "é\n'", "c": None}]]


def test_a_long_statement(route) -> None:
    """Longer than the socket's buffers."""
    text = "é" * 4_000_000
    assert route.read(f"select length('{text}') as n, '{text}' as t").column("n").to_pylist() == [4_000_000]


def test_two_at_once(route, memory) -> None:
    """Two threads, two connections."""
    found: list[int] = []
    pool = ConnectionPool(route.server.dsn(unix=route.name == "unix"))

    def work(start: int) -> None:
        query = f"select g from generate_series({start}, {start + 49999}) g"
        table = wire.pa.Table.from_batches(wire.stream(pool, memory.allocate, query, **route.options))
        found.append(sum(table.column(0).to_pylist()))

    threads = [threading.Thread(target=work, args=(start,)) for start in (1, 1_000_000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pool.close()
    assert sorted(found) == [sum(range(1, 50_001)), sum(range(1_000_000, 1_050_000))]


def test_libpq_is_usable_in_between(route) -> None:
    """The same transaction: describe, a reply of ours, and libpq again."""
    with Session(route.pool, SessionOptions(reader=route.options["reader"])) as session:
        for number in (1, 2):
            columns = session.describe("select 5 as five")
            copy = route.framing == "copy"
            text = "copy (select 5 as five) to stdout (format binary)" if copy else "select 5 as five"
            replies = session.run(wire.Request(text, copy=copy), route.memory.allocate, lambda: None)
            decoder = wire.make_decoder(wire.plan(columns), route.framing, allocate=route.memory.allocate)
            assert [batch.num_rows for batch in wire.decode_replies(replies, decoder, copy=copy)] == [1]
            session.finish()
            connection: psycopg.Connection = session._connection
            assert connection.execute("select %s::int", (number,)).fetchone() == (number,)
