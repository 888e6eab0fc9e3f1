"""What is no command, or not one for the call: typed, short, without a traceback, and nothing is left behind."""

from __future__ import annotations

import pyarrow as pa
import pytest
from google.protobuf.any_pb2 import Any as Packed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import flight

from flight_sql import pack
from flight_sql.commands import ACTIONS, COMMANDS
from flight_sql.envelope import TYPE_PREFIX
from flight_sql.proto import flight_sql_pb2 as pb
from tests.flight_server.sql.rpc import RawClient
from tests.helpers.server import ServerProcess

EMPTY = pa.record_batch({"a": pa.array([], pa.int32())})
READS = pb.CommandStatementQuery(query="select 1")
TYPED = (pa.ArrowInvalid, pa.ArrowKeyError, pa.ArrowNotImplementedError, flight.FlightError)


def calls(raw: RawClient, payload: bytes) -> list[object]:
    """Send a payload as descriptor and as ticket; return the errors."""
    caught: list[object] = []
    for call in (lambda: raw.info(payload), lambda: raw.get(payload), lambda: raw.put(payload, EMPTY)):
        with pytest.raises(TYPED) as error:
            call()
        caught.append(error.value)
    return caught


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (Packed(type_url=TYPE_PREFIX + "google.protobuf.Empty").SerializeToString(), "unknown command"),
        (Packed(type_url=TYPE_PREFIX + "arrow.flight.protocol.sql.NoSuch").SerializeToString(), "unknown command"),
        (pack(READS)[:-3], r"no google\.protobuf\.Any"),
        (Packed(type_url=Packed.FromString(pack(READS)).type_url, value=b"\x0a\xff").SerializeToString(),
         "no CommandStatementQuery"),
        (Packed(type_url=TYPE_PREFIX + "x" * (4 << 20)).SerializeToString(), "at most"),
    ],
)  # fmt: skip
def test_what_is_no_command(raw: RawClient, payload: bytes, text: str) -> None:
    for error in calls(raw, payload):
        assert "Traceback" not in str(error)
        assert len(str(error)) < 3000
    with pytest.raises(TYPED, match=text):
        raw.info(payload)


def test_commands_in_the_wrong_call(raw: RawClient) -> None:
    for call, text in (
        (lambda: raw.get(READS), "CommandStatementQuery has no meaning in DoGet"),
        (lambda: raw.info(pb.TicketStatementQuery(statement_handle=b"x")), "no meaning in GetFlightInfo"),
        (lambda: raw.info(pb.CommandStatementUpdate(query="x")), "no meaning in GetFlightInfo"),
        (lambda: raw.put(pb.CommandGetTables(), EMPTY), "CommandGetTables has no meaning in DoPut"),
    ):
        with pytest.raises(pa.ArrowNotImplementedError, match=text) as caught:
            call()
        assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize(
    "command",
    [
        pb.CommandStatementUpdate(query="delete from t"),
        pb.CommandPreparedStatementUpdate(prepared_statement_handle=b"x"),
        pb.CommandStatementIngest(table="t"),
        pb.CommandStatementSubstraitPlan(),
    ],
    ids=lambda command: command.DESCRIPTOR.name,
)
def test_what_writes(raw: RawClient, command: object) -> None:
    with pytest.raises(pa.ArrowNotImplementedError, match="this server only reads"):
        raw.put(command, EMPTY)


@pytest.mark.parametrize(
    "request_",
    [
        pb.ActionBeginTransactionRequest(),
        pb.ActionEndTransactionRequest(transaction_id=b"x"),
        pb.ActionBeginSavepointRequest(),
        pb.ActionEndSavepointRequest(),
        pb.ActionCreatePreparedSubstraitPlanRequest(),
    ],
    ids=lambda request: request.DESCRIPTOR.name,
)
def test_transactions(raw: RawClient, request_: object) -> None:
    name = request_.DESCRIPTOR.name.removeprefix("Action").removesuffix("Request")
    with pytest.raises(pa.ArrowNotImplementedError, match=f"only reads, and only SQL: {name}"):
        raw.act(name, pack(request_))
    for command in (
        pb.CommandStatementQuery(query="select 1", transaction_id=b"x"),
        pb.CommandStatementQuery(query=" "),
    ):
        with pytest.raises((pa.ArrowNotImplementedError, pa.ArrowInvalid), match=r"transaction|empty"):
            raw.info(command)


def test_actions_with_another_body(raw: RawClient) -> None:
    for body in (b"", b"\xff", pack(READS), pack(READS)[:-1]):
        with pytest.raises(pa.ArrowInvalid, match=r"the action's body|no google\.protobuf\.Any"):
            raw.act("CreatePreparedStatement", body)
    with pytest.raises(pa.ArrowInvalid, match="no SetSessionOptionsRequest"):
        raw.act("SetSessionOptions", b"\x0a\xff")
    with pytest.raises(pa.ArrowInvalid, match="unknown action"):
        raw.act("Dance", b"")
    with pytest.raises(pa.ArrowInvalid, match="bytes"):
        raw.act("CreatePreparedStatement", b"x" * (17 << 20))


def test_statements_that_are_too_long(raw: RawClient) -> None:
    long = "select " + "1," * (1 << 20) + "1"
    for call in (lambda: raw.query(long), lambda: raw.prepare(long)):
        with pytest.raises(pa.ArrowInvalid, match=r"more than 1048576 bytes|at most"):
            call()
    with pytest.raises(pa.ArrowInvalid, match="zero byte"):
        raw.query("select 1\0")


def test_what_is_offered(raw: RawClient) -> None:
    offered = {action.type for action in raw.flight.list_actions()}
    assert {action.name for action in ACTIONS} <= offered


def test_the_old_ways_are_open(raw: RawClient) -> None:
    """SQL and JSON without Flight SQL; writing that way is refused as it was."""
    for command in (b"select 1 as a", b"\nselect 1 as a", b'{"sql": "select 1 as a"}'):
        assert raw.get(command)["a"].to_pylist() == [1]
    with pytest.raises(pa.ArrowNotImplementedError, match="only reads"):
        raw.put(b"insert into t", EMPTY)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(COMMANDS), st.binary(max_size=60))
def test_any_value_is_answered(raw: RawClient, server: ServerProcess, command: object, value: bytes) -> None:
    """A command of the right name with any bytes in it: an answer or a typed error, never an internal one."""
    payload = Packed(
        type_url=TYPE_PREFIX + command.message.DESCRIPTOR.full_name, value=value
    ).SerializeToString()  # fmt: skip
    for call in (lambda: raw.info(payload), lambda: raw.get(payload), lambda: raw.put(payload, EMPTY)):
        try:
            call()
        except TYPED as error:
            assert "internal error" not in str(error)
            assert "Traceback" not in str(error)
