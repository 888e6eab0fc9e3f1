"""Prepared statements message by message: handles, parameters for one run and for many, and whose they are."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pyarrow as pa
import pytest
from adbc_driver_flightsql import dbapi
from pyarrow import flight

from demo.postgres import EmbeddedPostgres
from flight_server.request import ReadRequest
from flight_server.sql import bindings, handles, reads
from flight_server.sql.bindings import Bindings
from flight_server.sql.handles import Handle
from flight_server.sql.shelf import Shelf
from flight_server.tickets import TicketSigner
from flight_sql.proto import flight_sql_pb2 as pb
from kernels.errors import RequestError, TicketError
from tests.flight_server.sql.rpc import RawClient
from tests.helpers.server import ServerProcess

SQUARE = "select $1::int4 as n, $1 * $1 as square"
SERIES = "select $1::int4 as run, g from generate_series(1, $2::int4) as g"


def numbers(*values: int | None) -> pa.RecordBatch:
    return pa.record_batch({"n": pa.array(values, pa.int32())})


@pytest.fixture(scope="module")
def replicas(
    postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[ServerProcess]]:
    """Two servers with one signing key; the third asks for a token besides."""
    folder: Path = tmp_path_factory.mktemp("keys")
    (folder / "key").write_text("the same key everywhere")
    (folder / "token").write_text("secret")
    flags = ("--signing-key-file", str(folder / "key"))
    with (
        ServerProcess(postgres.dsn(), *flags) as first,
        ServerProcess(postgres.dsn(), *flags) as second,
        ServerProcess(postgres.dsn(), *flags, "--auth-token-file", str(folder / "token")) as third,
    ):
        yield [first, second, third]


def test_what_is_prepared(raw: RawClient) -> None:
    prepared = raw.prepare("select $1::text as t, $2::numeric(8, 2) as n")
    assert pa.ipc.read_schema(pa.py_buffer(prepared.dataset_schema)).types == [pa.string(), pa.decimal128(8, 2)]
    assert pa.ipc.read_schema(pa.py_buffer(prepared.parameter_schema)).names == ["$1", "$2"]
    assert prepared.HasField("is_update")
    assert not prepared.is_update
    command = pb.CommandPreparedStatementQuery(prepared_statement_handle=prepared.prepared_statement_handle)
    assert raw.schema(command).types == [pa.string(), pa.decimal128(8, 2)]
    raw.close_statement(prepared.prepared_statement_handle)
    raw.close_statement(prepared.prepared_statement_handle)
    raw.close_statement(b"unknown")


def test_parameters_of_one_run(raw: RawClient) -> None:
    handle = raw.prepare(SQUARE).prepared_statement_handle
    bound = raw.bind(handle, numbers(7))
    assert raw.run(bound).to_pylist() == [{"n": 7, "square": 49}]
    assert raw.run(raw.bind(bound, numbers(8))).to_pylist() == [{"n": 8, "square": 64}]
    assert raw.run(raw.bind(handle, numbers(None))).to_pylist() == [{"n": None, "square": None}]
    assert raw.run(bound).to_pylist() == [{"n": 7, "square": 49}], "a handle stands for what was bound to it"


def test_clients_that_keep_the_first_handle(raw: RawClient) -> None:
    """Older drivers do not read what DoPut answers: the last parameters count."""
    handle = raw.prepare(SQUARE).prepared_statement_handle
    raw.bind(handle, numbers(7))
    assert raw.run(handle)["square"].to_pylist() == [49]
    raw.bind(handle, numbers(1, 2))
    assert raw.run(handle)["square"].to_pylist() == [1, 4]
    raw.close_statement(handle)
    with pytest.raises(pa.ArrowInvalid, match="1 parameters: bind them first"):
        raw.run(handle)


@pytest.mark.parametrize("reader", ["auto", "libpq"])
def test_parameters_of_many_runs(raw: RawClient, reader: str) -> None:
    """Results follow one another in the order of the parameters, in few batches, from one snapshot."""
    raw.headers["x-pgflight-reader"] = reader
    handle = raw.prepare(SERIES).prepared_statement_handle
    rows = pa.record_batch({"run": pa.array(range(300), pa.int32()), "g": pa.array([n % 7 for n in range(300)])})
    info = raw.info(pb.CommandPreparedStatementQuery(prepared_statement_handle=raw.bind(handle, rows)))
    reader = raw.flight.do_get(info.endpoints[0].ticket, raw.options)
    batches = [chunk.data for chunk in reader]
    found = pa.Table.from_batches(batches)
    assert found["run"].to_pylist() == [run for run in range(300) for _ in range(run % 7)]
    assert found["g"].to_pylist() == [g + 1 for run in range(300) for g in range(run % 7)]
    assert len(batches) == 1
    snapshots = raw.prepare("select pg_current_snapshot()::text as s, $1::int4 as n").prepared_statement_handle
    seen = raw.run(raw.bind(snapshots, numbers(*range(50))))
    assert len(set(seen["s"].to_pylist())) == 1


def test_large_runs_are_not_held_together(raw: RawClient) -> None:
    """What a run returns flows while the next ones wait; batches stay below a MiB."""
    handle = raw.prepare(
        "select g, repeat('x', 200) as t from generate_series(1, $1::int4) g"
    ).prepared_statement_handle
    info = raw.info(
        pb.CommandPreparedStatementQuery(
            prepared_statement_handle=raw.bind(handle, numbers(1, 20_000, 0, 30_000, 2))
        )
    )
    batches = [chunk.data for chunk in raw.flight.do_get(info.endpoints[0].ticket, raw.options)]
    assert sum(batch.num_rows for batch in batches) == 50_003
    assert max(batch.nbytes for batch in batches) <= 1 << 20


def test_no_runs(raw: RawClient) -> None:
    handle = raw.bind(raw.prepare(SQUARE).prepared_statement_handle, numbers())
    found = raw.run(handle)
    assert (found.num_rows, found.schema.names) == (0, ["n", "square"])


def test_an_error_in_one_run_ends_all(raw: RawClient) -> None:
    handle = raw.bind(raw.prepare("select 10 / $1::int4 as v").prepared_statement_handle, numbers(5, 0, 2))
    with pytest.raises(pa.ArrowInvalid, match="22012"):
        raw.run(handle)


def test_wrong_numbers_of_parameters(raw: RawClient) -> None:
    handle = raw.prepare(SQUARE).prepared_statement_handle
    with pytest.raises(pa.ArrowInvalid, match="takes 1 parameters, 2 were given"):
        raw.bind(handle, pa.record_batch({"a": [1], "b": [2]}))
    with pytest.raises(pa.ArrowInvalid, match="bind them first"):
        raw.run(handle)
    none = raw.prepare("select 1 as one").prepared_statement_handle
    assert raw.run(raw.bind(none, pa.record_batch([pa.array([])], names=["x"]).select([]))).num_rows == 1
    with pytest.raises(pa.ArrowInvalid, match="takes 0 parameters, 1 were given"):
        raw.bind(none, numbers(1))


def test_many_parameters_stay_with_the_server(raw: RawClient) -> None:
    """A handle stays small whatever is bound; it names what the server keeps."""
    handle = raw.prepare("select length($1::text) as n").prepared_statement_handle
    texts = pa.record_batch({"t": ["x" * 1000] * 2000})
    bound = raw.bind(handle, texts)
    assert len(bound) < 1000
    assert raw.run(bound).num_rows == 2000
    assert raw.run(handle).num_rows == 2000
    many = pa.array(["x" * (1 << 20)])
    for column in (
        pa.chunked_array([many] * 20),
        pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), many),
        pa.RunEndEncodedArray.from_arrays(pa.array([2**31 - 1], pa.int32()), many),
        pa.nulls(2**30),
        pa.array([["x" * 200]] * 200_000),
    ):
        with pytest.raises(pa.ArrowInvalid, match="more than"):
            raw.bind(handle, pa.table({"t": column}))


def test_replicas_know_the_handles(replicas: list[ServerProcess]) -> None:
    """Prepared here, bound there, run elsewhere; only many parameters stay where they were bound."""
    with RawClient(replicas[0].uri) as first, RawClient(replicas[1].uri) as second:
        handle = first.prepare(SQUARE).prepared_statement_handle
        assert first.run(second.bind(handle, numbers(3, 4)))["square"].to_pylist() == [9, 16]
        [endpoint] = first.info(
            pb.CommandPreparedStatementQuery(prepared_statement_handle=first.bind(handle, numbers(5)))
        ).endpoints
        assert second.get(endpoint.ticket.ticket)["square"].to_pylist() == [25]
        many = first.bind(handle, numbers(*range(5000)))
        assert first.run(many).num_rows == 5000
        with pytest.raises(flight.FlightUnauthorizedError, match="bind them again"):
            second.run(many)


def test_kept_parameters_are_read_where_they_are() -> None:
    """Other locations do not know them."""
    endpoint = flight.FlightEndpoint(b"pgf1.x", ["grpc://one:1", "grpc://two:2"])
    carried = reads._sql_endpoint(endpoint, Handle(ticket=b"", rows=(("1",),)))
    assert carried.locations == endpoint.locations
    assert handles.server_ticket(carried) == b"pgf1.x"
    assert reads._sql_endpoint(endpoint, Handle(ticket=b"", kept="here")).locations == []


def test_handles_of_others(replicas: list[ServerProcess]) -> None:
    """Signed with the right key, but issued to somebody else: of no use, whatever the call."""
    with (
        RawClient(replicas[0].uri) as anonymous,
        RawClient(replicas[2].uri, {"authorization": "Bearer secret"}) as holder,
    ):
        handle = anonymous.prepare(SQUARE).prepared_statement_handle
        bound = anonymous.bind(handle, numbers(1))
        ticket = anonymous.info(
            pb.CommandPreparedStatementQuery(prepared_statement_handle=bound)
        ).endpoints[0].ticket.ticket  # fmt: skip
        command = pb.CommandPreparedStatementQuery(prepared_statement_handle=bound)
        for call in (
            lambda: holder.run(bound),
            lambda: holder.bind(handle, numbers(1)),
            lambda: holder.get(ticket),
            lambda: holder.get(command),
        ):
            with pytest.raises(flight.FlightUnauthorizedError, match="somebody else"):
                call()
        assert holder.run(holder.bind(holder.prepare(SQUARE).prepared_statement_handle, numbers(2))).num_rows == 1


def test_forged_handles(raw: RawClient, server: ServerProcess) -> None:
    """Changed, cut, made up or huge: refused as what they are."""
    handle = raw.bind(raw.prepare(SQUARE).prepared_statement_handle, numbers(2))
    parts = json.loads(handle.removeprefix(handles.PREFIX))
    text = parts["t"]
    forged = TicketSigner(b"another key").seal(ReadRequest(sql="select 1"), "anonymous", "")
    for made in (
        b"", b"x", handle[:-5], handle[:20], b"pgq1.{}", b"pgq1.[]", b"pgq1.{\"t\": 1}", forged,
        handles.PREFIX + json.dumps({**parts, "t": text[:50] + ("A" if text[50] != "A" else "B") + text[51:]}).encode(),
        handles.PREFIX + json.dumps({**parts, "r": [[{"a": 1}]]}).encode(),
        handles.PREFIX + json.dumps({**parts, "p": ["x"]}).encode(), handles.PREFIX + b"[" * 100_000, b"z" * (3 << 20),
    ):  # fmt: skip
        with pytest.raises((flight.FlightUnauthorizedError, pa.ArrowInvalid)) as caught:
            raw.run(made)
        assert "Traceback" not in str(caught.value)
        assert "internal error" not in str(caught.value)
    with pytest.raises(pa.ArrowInvalid, match="another number is bound"):
        raw.run(handles.PREFIX + json.dumps({**parts, "r": [["1", "2"]]}).encode())
    with pytest.raises(flight.FlightUnauthorizedError, match="kept elsewhere"):
        raw.run(handles.PREFIX + json.dumps({**parts, "r": None, "k": "unknown"}).encode())


def test_ddl_between_prepare_and_run(raw: RawClient, shop: psycopg.Connection) -> None:
    """Refused once, for the schema that was promised is gone; planned again, it is the new one."""
    handle = raw.prepare("select * from scratch.a_b").prepared_statement_handle
    shop.execute("alter table scratch.a_b add column y text")
    with pytest.raises(flight.FlightUnauthorizedError, match="schema has changed"):
        raw.run(handle)
    assert raw.run(handle).schema.names == ["x", "y"]


def test_drivers_bind_and_bind_again(adbc: dbapi.Connection) -> None:
    with adbc.cursor() as cursor:
        for number in range(20):
            cursor.execute(SQUARE, (number,))
            assert cursor.fetchall() == [(number, number * number)]
        cursor.execute(SQUARE, numbers(*range(1000)))
        assert cursor.fetch_arrow_table()["square"].to_pylist() == [number**2 for number in range(1000)]
        reader = pa.RecordBatchReader.from_batches(numbers(1).schema, [numbers(1, 2), numbers(), numbers(3)])
        cursor.execute(SQUARE, reader)
        assert cursor.fetch_arrow_table()["n"].to_pylist() == [1, 2, 3]


def test_handles_say_what_they_say() -> None:
    ticket = TicketSigner(b"key").seal(ReadRequest(sql="select 1"), "me", "digest")
    assert Handle(ticket=ticket).encode() == ticket
    whole = Handle(ticket=ticket, schema="ü", id="i", targets=(23, 25), rows=(("1", None),), kept="")
    assert handles.decode(whole.encode()) == whole
    assert handles.decode(replace(whole, rows=(), kept="k").encode()) == replace(whole, rows=(), kept="k")
    with pytest.raises(TicketError, match="bytes"):
        handles.decode(b"x" * (handles.MAX_HANDLE_BYTES + 1))


def test_a_shelf_is_bounded() -> None:
    """In number and in bytes; what is used stays."""
    shelf: Shelf[str] = Shelf(3, 100, 60)
    for key in "abc":
        shelf.put(key, key.upper(), 10)
    assert shelf.get("a") == "A"
    shelf.put("d", "D", 10)
    assert [shelf.get(key) for key in "abcd"] == ["A", None, "C", "D"]
    shelf.put("e", "E", 95)
    assert [shelf.get(key) for key in "acde"] == [None, None, None, "E"]
    shelf.put("huge", "H", 101)
    assert len(shelf) == 0
    shelf.put("e", "E", 1)
    shelf.drop("e")
    shelf.drop("e")
    assert shelf.get("e") is None


def test_a_shelf_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("flight_server.sql.shelf.time.monotonic", lambda: now)
    shelf: Shelf[str] = Shelf(10, 100, 60)
    shelf.put("a", "A", 1)
    now = 59.0
    assert shelf.get("a") == "A"
    now = 118.0
    assert shelf.get("a") == "A"
    now = 179.0
    assert shelf.get("a") is None
    assert len(shelf) == 0


def test_bindings_are_everybodys_own() -> None:
    """The same names under another identity lead nowhere."""
    kept = Bindings(60)
    handle = Handle(ticket=b"t", id="i", targets=(25,))
    rows = [pa.record_batch({"t": ["x" * 100_000]})]
    bound = kept.bind("me", handle, rows)
    assert bound.kept
    assert kept.rows("me", bound) == kept.rows("me", handle) == (("x" * 100_000,),)
    assert kept.rows("you", handle) is None
    with pytest.raises(TicketError, match="bind them again"):
        kept.rows("you", bound)
    kept.forget("you", bound)
    assert kept.rows("me", bound) is not None
    kept.forget("me", bound)
    assert kept.rows("me", handle) is None
    with pytest.raises(RequestError, match="more than"):
        kept.bind("me", handle, [pa.record_batch({"t": [secrets.token_hex(bindings.MAX_BYTES)]})])
