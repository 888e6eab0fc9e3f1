"""Every failure reaches the client as a typed Flight error with our text: no traceback, no path, no novel."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import psycopg
import pyarrow as pa
import pytest
from pyarrow import flight

from tests.helpers.server import ServerProcess
from tests.helpers.waiting import eventually

MAX_TEXT = 6000  # the client repeats the text as context


def command(**parts: object) -> bytes:
    return json.dumps(parts).encode()


def expect(kind: type[Exception], text: str, call: Callable[[], object]) -> None:
    """Require an error of exactly this class, with this text and nothing that is nobody's business."""
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert type(caught.value) is kind
    assert text in message
    assert "Traceback" not in message
    assert ".py" not in message
    assert len(message) < MAX_TEXT


CASES = [
    (b"selec 1", pa.ArrowInvalid, "42601"),
    (b"select 1; select 2", pa.ArrowInvalid, "42601"),
    (b"select no_such_column", pa.ArrowInvalid, "42703"),
    (b"select * from no_such_table", pa.ArrowKeyError, "42P01"),
    (command(table="no_such_schema.t"), pa.ArrowKeyError, "42P01"),
    (b"create table scratch_t (a int)", pa.ArrowInvalid, "returns no columns"),
    (b"begin", pa.ArrowInvalid, "returns no columns"),
    (b"", pa.ArrowInvalid, "empty"),
    (b"\xff", pa.ArrowInvalid, "UTF-8"),
    (b"select 1\0", pa.ArrowInvalid, "zero byte"),
    (command(sql="select 1", options={"speed": 1}), pa.ArrowInvalid, "speed"),
    (command(sql="select 1", options={"output": "cuda-ipc"}), pa.ArrowInvalid, "cuda-ipc"),
    (command(sql="select $1::int", params=[]), pa.ArrowInvalid, "takes 1 parameters"),
    (b"select '" + b"x" * 100_000 + b"'::int", pa.ArrowInvalid, "22P02"),
    (b"select " + b"y" * 60 + b"(1)", pa.ArrowInvalid, "42883"),
]


@pytest.mark.parametrize(("request_bytes", "kind", "text"), CASES, ids=[str(case[0][:40]) for case in CASES])
def test_requests_that_cannot_be_planned(
    client: flight.FlightClient, request_bytes: bytes, kind: type[Exception], text: str
) -> None:
    """The same error from GetFlightInfo and from DoGet (GetSchema knows fewer classes, see below)."""
    descriptor = flight.FlightDescriptor.for_command(request_bytes)
    if request_bytes:
        expect(kind, text, lambda: client.get_flight_info(descriptor))
    expect(kind, text, lambda: client.do_get(flight.Ticket(request_bytes)))


def test_privileges_are_checked_when_it_runs(client: flight.FlightClient) -> None:
    forbidden = flight.Ticket(b"select * from pg_authid")
    expect(flight.FlightUnauthorizedError, "42501", lambda: client.do_get(forbidden).read_all())


def test_get_schema_has_text_and_no_traceback(client: flight.FlightClient) -> None:
    """pyarrow flattens Flight errors raised in GetSchema; text and silence must hold all the same."""
    for request_bytes, text in ((b"select * from no_such_table", "42P01"), (b"selec", "42601")):
        with pytest.raises((pa.ArrowException, KeyError)) as caught:
            client.get_schema(flight.FlightDescriptor.for_command(request_bytes))
        assert text in str(caught.value)
        assert "Traceback" not in str(caught.value)
        assert ".py" not in str(caught.value)


@pytest.mark.parametrize("framing", ["copy", "extended"])
def test_an_error_in_the_middle_of_a_stream(client: flight.FlightClient, framing: str) -> None:
    """The batches before it arrive; then the error, never a silent end."""
    sql = "select g, 1 / (150000 - g) from generate_series(1, 200000) g"
    reader = client.do_get(flight.Ticket(command(sql=sql, options={"framing": framing})))
    rows = 0

    def drain() -> None:
        nonlocal rows
        for chunk in reader:
            rows += chunk.data.num_rows

    expect(pa.ArrowInvalid, "22012", drain)
    assert 0 < rows < 150_000


def test_values_arrow_cannot_hold(client: flight.FlightClient) -> None:
    """Row and column are named, and the option that helps."""
    for sql, text in (
        ("select g, case g when 3 then 'infinity'::date else current_date end as d from generate_series(0, 9) g",
         "row 3, column 'd'"),
        ("select 'NaN'::numeric(4,1) as n", "numeric=string"),
        ("select '24:00'::time as t", "column 't'"),
        ("select timestamp '294276-12-31' as far", "column 'far'"),
    ):  # fmt: skip
        expect(pa.ArrowInvalid, text, lambda sql=sql: client.do_get(flight.Ticket(sql.encode())).read_all())


def test_killed_backend(client: flight.FlightClient, database: psycopg.Connection) -> None:
    """PostgreSQL ends the connection in mid-stream: a retryable error."""
    reader = client.do_get(flight.Ticket(b"select g, repeat('x', 200) from generate_series(1, 3000000) g"))
    reader.read_chunk()
    database.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity "
        "where application_name = 'pgflight' and state = 'active'"
    )
    with pytest.raises(flight.FlightUnavailableError):
        reader.read_all()


def test_timeout(client: flight.FlightClient) -> None:
    """timeout_s ends a statement that computes and one that sends."""
    for sql in ("select pg_sleep(20)", "select generate_series(1, 1000000000) as g"):
        request = command(sql=sql, options={"timeout_s": 0.3})
        expect(
            flight.FlightTimedOutError, "0.3 s",
            lambda request=request: [None for _ in client.do_get(flight.Ticket(request))],
        )  # fmt: skip


def test_forged_and_foreign_tickets(client: flight.FlightClient) -> None:
    info = client.get_flight_info(flight.FlightDescriptor.for_command(b"select 1"))
    ticket = bytearray(info.endpoints[0].ticket.ticket)
    ticket[10] ^= 1
    expect(flight.FlightUnauthorizedError, "ticket", lambda: client.do_get(flight.Ticket(bytes(ticket))))
    expect(flight.FlightUnauthorizedError, "ticket", lambda: client.do_get(flight.Ticket(b"pgf1.")))


def test_expired_ticket(postgres: object, server: ServerProcess) -> None:
    with (
        ServerProcess(postgres.dsn(), "--ticket-lifetime-s", "0.001") as brief,  # type: ignore[attr-defined]
        flight.connect(brief.uri) as client,
    ):
        info = client.get_flight_info(flight.FlightDescriptor.for_command(b"select 1"))
        time.sleep(0.1)  # a request can follow within the millisecond
        expect(flight.FlightUnauthorizedError, "expired", lambda: client.do_get(info.endpoints[0].ticket))


def test_a_ticket_outlived_by_its_table(client: flight.FlightClient, database: psycopg.Connection) -> None:
    """DDL between GetFlightInfo and DoGet changes the promised schema: refused, not reinterpreted."""
    database.execute("create table scratch.t as select 1 as a")
    info = client.get_flight_info(flight.FlightDescriptor.for_path("scratch", "t"))
    database.execute("alter table scratch.t alter a type text")
    expect(flight.FlightUnauthorizedError, "schema has changed", lambda: client.do_get(info.endpoints[0].ticket))


def test_what_is_not_served(client: flight.FlightClient) -> None:
    """Methods of Flight that this server has not: typed, without pyarrow's own traceback."""
    schema = pa.schema([("a", pa.int64())])

    def put() -> None:
        writer, _ = client.do_put(flight.FlightDescriptor.for_path("t"), schema)
        writer.write_batch(pa.record_batch([pa.array([1])], schema=schema))
        writer.close()

    def exchange() -> None:
        writer, reader = client.do_exchange(flight.FlightDescriptor.for_path("t"))
        writer.done_writing()
        reader.read_all()

    expect(pa.ArrowNotImplementedError, "only reads", put)
    expect(pa.ArrowNotImplementedError, "DoExchange", exchange)
    expect(pa.ArrowInvalid, "'boom'", lambda: list(client.do_action(flight.Action("boom", b""))))


def fails_as_unavailable(client: flight.FlightClient, ticket: flight.Ticket) -> bool:
    try:
        client.do_get(ticket).read_all()
    except flight.FlightUnavailableError:
        return True
    return False


def test_postgresql_is_away(postgres_restartable: object) -> None:
    """Away: unavailable, in time.  Back: served again, without a restart of ours."""
    postgres = postgres_restartable
    with ServerProcess(postgres.dsn(), "--connection-wait-s", "2") as server, flight.connect(server.uri) as client:  # type: ignore[attr-defined]
        ticket = flight.Ticket(b"select 1 as a")
        assert client.do_get(ticket).read_all().num_rows == 1
        postgres.kill()  # type: ignore[attr-defined]
        eventually(
            lambda: fails_as_unavailable(client, ticket)
        )  # backends live a little longer than the postmaster
        postgres.restart()  # type: ignore[attr-defined]
        assert client.do_get(ticket).read_all().num_rows == 1


def test_a_row_beyond_the_limit(postgres: object) -> None:
    """A row larger than max_row_mib is refused by name; the next request is served."""
    with ServerProcess(postgres.dsn(), "--max-row-mib", "8", "--memory-mib", "64") as server:  # type: ignore[attr-defined]
        with flight.connect(server.uri) as client:
            big = flight.Ticket(b"select repeat('x', 9000000) as t")
            expect(flight.FlightUnavailableError, "max_row_mib", lambda: client.do_get(big).read_all())
            fits = client.do_get(flight.Ticket(b"select repeat('x', 7000000) as t")).read_all()
            assert len(fits["t"][0].as_py()) == 7_000_000


def test_a_gpu_that_is_not_used_is_refused(client: flight.FlightClient) -> None:
    command = b'{"sql": "select 1", "options": {"decode": "gpu"}}'
    with pytest.raises(pa.ArrowInvalid, match="decodes on the CPU"):
        client.get_flight_info(flight.FlightDescriptor.for_command(command))
    with pytest.raises(pa.ArrowInvalid, match="decodes on the CPU"):
        client.do_get(flight.Ticket(command)).read_all()
