"""What takes payloads apart in the server, without a server: each ends well, or with one of our errors."""

from __future__ import annotations

import json
from collections.abc import Callable

import pyarrow as pa
from pyarrow import flight

from flight_server import actions
from flight_server.auth.login import Logins
from flight_server.auth.tokens import Everybody, OneToken
from flight_server.options import options_from_headers, parse_options
from flight_server.request import ReadRequest, parse_command, parse_path
from flight_server.sql import handles
from flight_sql import FlightSqlError, FlightSqlService, Router, is_packed
from flight_sql.commands import BY_ACTION
from flight_sql.envelope import parse
from flight_sql.proto import flight_sql_pb2 as pb
from flight_sql.proto import session_pb2
from flight_sql.sessions import wanted
from kernels.errors import PgflightError
from tests.torture.fuzz_wire.seeds import IDENTITY, SIGNER, Seed

ROUTER: Router[None] = Router(FlightSqlService())
EVERYBODY, HOLDER = Logins(Everybody()), Logins(OneToken("a token of the fuzzing"))
TYPED = (PgflightError, FlightSqlError)


def outcome(seed: Seed, raw: bytes) -> str:
    """Take a payload apart; return ``sound`` or the name of the error, raise what is neither."""
    try:
        BY_KIND[seed.kind](seed, raw)
    except TYPED as failure:
        str(failure).encode()  # what cannot be sent is no answer
        return type(failure).__name__
    return "sound"


def _request(_seed: Seed, raw: bytes) -> None:
    _usable(parse_command(raw, {}))


def _path(_seed: Seed, raw: bytes) -> None:
    _usable(parse_path(raw.split(b'"')[1::2], {}))


def _headers(_seed: Seed, raw: bytes) -> None:
    headers = headers_of(raw)
    for logins in (EVERYBODY, HOLDER):
        login = logins.check(headers)
        parse_options({**login.session.options, **options_from_headers(headers)})
        logins.bearer(login.identity, login.session).encode()


def _ticket(_seed: Seed, raw: bytes) -> None:
    handle = handles.decode(raw)
    _usable(SIGNER.open(handle.ticket, IDENTITY).request)
    handle.encode()


def _any(_seed: Seed, raw: bytes) -> None:
    if not is_packed(raw):
        return _request(_seed, raw)
    for call in (
        lambda: ROUTER.get_flight_info(None, flight.FlightDescriptor.for_command(raw)),
        lambda: ROUTER.get_schema(None, flight.FlightDescriptor.for_command(raw)),
        lambda: ROUTER.do_get(None, raw),
        lambda: handles.decode(parse(pb.TicketStatementQuery, raw).statement_handle),
        lambda: handles.server_ticket(flight.FlightEndpoint(raw, [])),
    ):
        _tried(call)
    return None


def _action(seed: Seed, raw: bytes) -> None:
    if seed.name == actions.CANCEL:
        for endpoint in actions.parse_cancel(raw).endpoints:
            SIGNER.open(handles.server_ticket(endpoint), IDENTITY)
    elif seed.name == actions.RENEW:
        SIGNER.open(handles.server_ticket(actions.parse_renew(raw)), IDENTITY)
    else:
        if BY_ACTION[seed.name].message is session_pb2.SetSessionOptionsRequest:
            for value in wanted(parse(session_pb2.SetSessionOptionsRequest, raw)).values():
                _tried(lambda value=value: parse_options({"streams": value}))
        list(ROUTER.do_action(None, seed.name, raw))


BY_KIND: dict[str, Callable[[Seed, bytes], None]] = {
    "request": _request, "path": _path, "headers": _headers, "ticket": _ticket, "any": _any, "action": _action,
}  # fmt: skip


def headers_of(raw: bytes) -> dict[str, list[str | bytes]]:
    """Return headers as gRPC hands them over: ASCII, of binary ones the bytes."""
    try:
        given = json.loads(raw)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        given = {"authorization": raw.decode("ascii", "replace"), "cookie": raw.decode("ascii", "replace")}
    found: dict[str, list[str | bytes]] = {}
    for name, value in given.items():
        text = value if isinstance(value, str) else str(value)
        binary = name.endswith("-bin")
        found[name.lower()] = [
            text.encode("utf-8", "replace") if binary else text.encode("ascii", "replace").decode()
        ]
    return found


def _usable(request: ReadRequest) -> None:
    """Make sure that what was let through can travel on, in a ticket and to PostgreSQL."""
    json.dumps(request.to_json(), ensure_ascii=False).encode()
    if any("\0" in name for name in (*(request.table or ()), *(request.columns or ()), *request.params) if name):
        raise ValueError("a zero byte was let through")


def _tried(call: Callable[[], object]) -> None:
    try:
        call()
    except (*TYPED, pa.ArrowNotImplementedError) as failure:
        str(failure).encode()
