"""What is far too large, and who is guessing: refused by type, by those who are logged in and those who are not."""

from __future__ import annotations

import pyarrow as pa
import pytest
from pyarrow import flight

from flight_server.auth.throttle import Budget, Throttle
from kernels.errors import OverloadedError
from tests.helpers.logins import PASSWORDS, basic
from tests.helpers.server import ServerProcess

LARGE = 64 << 20
REFUSED = (flight.FlightError, pa.ArrowException)


@pytest.mark.parametrize(
    ("prefix", "known"),
    [(b"", False), (b"", True), (b"pgf1.", True), (b"select 1 --", True), (b'{"sql": "', True), (b"pgq1.", True)],
)
def test_large_tickets(password_server: ServerProcess, prefix: bytes, known: bool) -> None:
    with flight.connect(password_server.uri) as client:
        with pytest.raises(REFUSED) as caught:
            client.do_get(flight.Ticket(prefix + b"x" * LARGE), _options(known)).read_all()
        _require_typed(caught.value, known)
        with pytest.raises(REFUSED) as caught:
            client.get_flight_info(flight.FlightDescriptor.for_command(prefix + b"x" * LARGE), _options(known))
        _require_typed(caught.value, known)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("info", False),
        ("info", True),
        ("CancelFlightInfo", True),
        ("CreatePreparedStatement", True),
        ("none", True),
    ],
)
def test_large_bodies(password_server: ServerProcess, name: str, known: bool) -> None:
    with flight.connect(password_server.uri) as client:
        with pytest.raises(REFUSED) as caught:
            list(client.do_action(flight.Action(name, b"x" * LARGE), _options(known)))
        _require_typed(caught.value, known)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        (b"authorization", LARGE),
        (b"authorization", 100_000),
        (b"cookie", 100_000),
        (b"x-pgflight-profile", 100_000),
    ],
)
def test_large_headers(password_server: ServerProcess, name: bytes, size: int) -> None:
    """gRPC refuses them; the server goes on, and the next call is served."""
    with flight.connect(password_server.uri) as client:
        options = flight.FlightCallOptions(headers=[(name, b"x" * size)], timeout=30)
        with pytest.raises(REFUSED) as caught:
            client.do_get(flight.Ticket(b"select 1"), options).read_all()
        assert "Traceback" not in str(caught.value)
    with flight.connect(password_server.uri) as client:
        assert client.do_get(flight.Ticket(b"select 1 as a"), _options(True)).read_all().num_rows == 1


def test_throttle_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("flight_server.auth.throttle.time.monotonic", lambda: now)
    throttle = Throttle(Budget(3, 0.5), Budget(1000, 100.0), max_names=50)
    for _ in range(3):
        throttle.spend("eve")
    with pytest.raises(OverloadedError, match="too many failed logins"):
        throttle.spend("eve")
    throttle.spend("ann")  # others are not concerned
    throttle.give_back("eve")
    throttle.spend("eve")
    now += 2
    throttle.spend("eve")
    with pytest.raises(OverloadedError):
        throttle.spend("eve")
    for number in range(900):
        throttle.spend(f"name {number}")
    assert len(throttle) == 50
    with pytest.raises(OverloadedError):  # all together, whatever their names
        for number in range(900):
            throttle.spend(f"more {number}")


def _options(known: bool) -> flight.FlightCallOptions:
    headers = [(b"authorization", basic("alice", PASSWORDS["alice"]).encode())] if known else []
    return flight.FlightCallOptions(headers=headers, timeout=60)


def _require_typed(failure: BaseException, known: bool) -> None:
    assert "Traceback" not in str(failure)
    assert "internal error" not in str(failure)
    assert isinstance(failure, flight.FlightUnauthenticatedError) != known
    assert len(str(failure)) < 3000
