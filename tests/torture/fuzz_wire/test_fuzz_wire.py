"""The wire fuzz in a small form, and what it found."""

from __future__ import annotations

import base64

import pytest

from flight_server.auth.login import Logins
from flight_server.auth.tokens import OneToken
from flight_server.options import parse_options
from flight_server.request import parse_command, parse_path
from flight_server.sql.handles import decode
from kernels.errors import RequestError, TicketError, UnauthenticatedError
from tests.helpers.server import ServerProcess
from tests.torture.fuzz_wire.live import assault
from tests.torture.fuzz_wire.run import fuzz


def test_parsers_refuse_by_type() -> None:
    found = fuzz(30_000, seed=3)
    assert found.bad == {}
    assert found.outcomes.keys() >= {
        "sound",
        "RequestError",
        "TicketError",
        "MalformedError",
        "UnauthenticatedError",
    }
    assert set(found.kinds) == {"request", "path", "headers", "ticket", "any", "action"}


def test_a_server_refuses_by_type(server: ServerProcess) -> None:
    found = assault(server, 150, seed=4)
    assert found.bad == {}
    assert found.outcomes["sound"] < found.kinds.total()


@pytest.mark.parametrize(
    "raw",
    [
        b'{"sql": "select \\ud800"}',
        b'{"table": "t", "columns": ["\\udc00"]}',
        b'{"table": ["a\\u0000b"]}',
        b'{"table": "t", "columns": ["\\u0000"]}',
        b'{"sql": "select $1", "params": [' + b"9" * 5000 + b"]}",
        b'{"sql": "select 1", "options": {"streams": 1' + b"0" * 400 + b"}}",
        b'{"a":' * 100_000,
    ],
)
def test_what_once_was_no_typed_error(raw: bytes) -> None:
    with pytest.raises(RequestError):
        parse_command(raw, {})


def test_a_path_with_a_zero_byte() -> None:
    with pytest.raises(RequestError):
        parse_path([b"a\0b"], {})


def test_a_number_beyond_floats() -> None:
    with pytest.raises(RequestError, match="timeout_s"):
        parse_options({"timeout_s": 10**400})


def test_numbers_beyond_floats_and_integers_elsewhere() -> None:
    with pytest.raises(TicketError):
        decode(b'pgq1.{"t":"pgf1.x","p":[1e999]}')
    token = base64.urlsafe_b64encode(b'{"i":"anonymous","e":1' + b"0" * 400 + b"}").decode()
    with pytest.raises(UnauthenticatedError):
        Logins(OneToken("a token of the test")).check({"authorization": [f"Bearer pgl1.{token}.x"]})
