"""The table of commands: nothing of the protocol is missing, and everything leads somewhere."""

from __future__ import annotations

import inspect

import pytest
from google.protobuf.empty_pb2 import Empty

from flight_sql import FlightSqlService, Router, UnsupportedError, pack
from flight_sql.commands import ACTIONS, COMMANDS, ActionType, Command
from flight_sql.errors import MalformedError
from flight_sql.proto import flight_sql_pb2 as pb

PUBLISHED_ACTIONS = {
    "CreatePreparedStatement", "ClosePreparedStatement", "CreatePreparedSubstraitPlan", "BeginTransaction",
    "EndTransaction", "BeginSavepoint", "EndSavepoint", "CancelQuery", "SetSessionOptions", "GetSessionOptions",
    "CloseSession",
}  # fmt: skip


@pytest.fixture
def router() -> Router[None]:
    return Router(FlightSqlService[None]())


def test_every_message_is_led_somewhere() -> None:
    messages = set(pb.DESCRIPTOR.message_types_by_name)
    commands = {name for name in messages if name.startswith(("Command", "Ticket"))}
    assert {command.message.DESCRIPTOR.name for command in COMMANDS} == commands
    requests = {name for name in messages if name.startswith("Action") and name.endswith("Request")}
    assert {action.message.DESCRIPTOR.name for action in ACTIONS if action.packed} == requests
    assert {action.name for action in ACTIONS} == PUBLISHED_ACTIONS


def test_every_method_is_used_once() -> None:
    used = [
        name for command in COMMANDS for name in (command.rows, command.plan, command.describe, command.read, command.put)
        if name
    ] + [action.method for action in ACTIONS]  # fmt: skip
    offered = {
        name for name, _ in inspect.getmembers(FlightSqlService, inspect.isfunction) if not name.startswith("_")
    }
    assert sorted(used) == sorted(offered - {"unsupported"})


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.message.DESCRIPTOR.name)
def test_what_a_server_does_not_do_is_unsupported(router: Router[None], command: Command) -> None:
    """Until it is overridden; in an RPC where it has no meaning, always."""
    with pytest.raises(UnsupportedError, match=f"{command.message.DESCRIPTOR.name}.*(supported|no meaning)"):
        router.do_get(None, pack(command.message()))


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.name)
def test_actions_are_unsupported_until_overridden(router: Router[None], action: ActionType) -> None:
    body = pack(action.message()) if action.packed else action.message().SerializeToString()
    with pytest.raises(UnsupportedError, match=f"{action.name} is not supported"):
        router.do_action(None, action.name, body)


def test_what_is_no_command(router: Router[None]) -> None:
    query = pack(pb.CommandStatementQuery(query="select 1"))
    with pytest.raises(UnsupportedError, match=r"unknown command .*google\.protobuf\.Empty"):
        router.do_get(None, pack(Empty()))
    with pytest.raises(MalformedError, match=r"google\.protobuf\.Any"):
        router.do_get(None, query[:-3])
    with pytest.raises(UnsupportedError, match="unknown action 'Dance'"):
        router.do_action(None, "Dance", b"")
    with pytest.raises(MalformedError, match="CommandStatementQuery"):
        router.do_action(None, "BeginSavepoint", query)
