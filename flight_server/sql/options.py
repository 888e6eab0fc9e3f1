"""Session options: the current catalog and schema, and every read option by its name."""

from __future__ import annotations

from dataclasses import asdict, fields

from flight_server.auth.state import SessionState
from flight_server.options import ReadOptions, parse_options
from flight_server.sql.calls import Call
from flight_server.sql.metadata import Metadata
from flight_sql import sessions
from flight_sql.proto import session_pb2 as pb
from flight_sql.sessions import OptionValue, Refusal
from kernels.errors import RequestError

CATALOG = "catalog"
SCHEMA = "schema"
READ_OPTIONS = frozenset(field.name for field in fields(ReadOptions))


class _Refused(Exception):  # noqa: N818 (becomes a part of the answer)
    """An option that is not set, and why."""

    def __init__(self, reason: Refusal) -> None:
        super().__init__(reason.name)
        self.reason = reason


def set_options(
    call: Call, request: pb.SetSessionOptionsRequest, metadata: Metadata
) -> pb.SetSessionOptionsResult:
    """Set what can be set, and say what cannot."""
    state, errors = call.session, {}
    for name, value in sessions.wanted(request).items():
        try:
            state = _changed(call, state, name, value, metadata)
        except _Refused as refused:
            errors[name] = refused.reason
    call.keep(state)
    return sessions.refused(errors)


def get_options(call: Call, metadata: Metadata) -> pb.GetSessionOptionsResult:
    """Return what is in force, whether chosen or not."""
    options: dict[str, OptionValue] = {
        CATALOG: metadata.facts(call.check).database,
        SCHEMA: metadata.current_schema(call.session.schema, call.check),
        **asdict(parse_options(call.session.options)),
    }
    return sessions.current(options)


def close(call: Call) -> pb.CloseSessionResult:
    """Forget what was chosen."""
    call.keep(SessionState())
    return pb.CloseSessionResult(status=pb.CloseSessionResult.CLOSED)


def _changed(
    call: Call, state: SessionState, name: str, value: OptionValue | None, metadata: Metadata
) -> SessionState:
    if name == CATALOG:
        if value not in (None, metadata.facts(call.check).database):
            raise _Refused(Refusal.INVALID_VALUE)
        return state
    if name == SCHEMA:
        if value is None:
            return state.with_schema("")
        if not isinstance(value, str) or "\0" in value or not metadata.has_schema(value, call.check):
            raise _Refused(Refusal.INVALID_VALUE)
        return state.with_schema(value)
    if name not in READ_OPTIONS:
        raise _Refused(Refusal.INVALID_NAME)
    try:
        return state.with_option(name, value)
    except RequestError as failure:
        raise _Refused(Refusal.INVALID_VALUE) from failure
