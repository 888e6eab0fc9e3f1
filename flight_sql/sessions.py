"""Session options: between the messages of Flight's session actions and Python's values."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from flight_sql.errors import MalformedError
from flight_sql.proto import session_pb2 as pb

OptionValue = str | bool | int | float | list[str]


class Refusal(IntEnum):
    """Why an option was not set."""

    INVALID_NAME = pb.SetSessionOptionsResult.INVALID_NAME
    INVALID_VALUE = pb.SetSessionOptionsResult.INVALID_VALUE
    ERROR = pb.SetSessionOptionsResult.ERROR


def wanted(request: pb.SetSessionOptionsRequest) -> dict[str, OptionValue | None]:
    """Return the options of a request; None takes an option back."""
    return {name: _read(value) for name, value in request.session_options.items()}


def refused(errors: Mapping[str, Refusal]) -> pb.SetSessionOptionsResult:
    """Make the answer to SetSessionOptions; without errors all were set."""
    result = pb.SetSessionOptionsResult()
    for name, reason in errors.items():
        result.errors[name].CopyFrom(pb.SetSessionOptionsResult.Error(value=reason.name))
    return result


def current(options: Mapping[str, OptionValue]) -> pb.GetSessionOptionsResult:
    """Make the answer to GetSessionOptions."""
    result = pb.GetSessionOptionsResult()
    for name, value in options.items():
        result.session_options[name].CopyFrom(to_message(value))
    return result


def to_message(value: OptionValue) -> pb.SessionOptionValue:
    """Return the message of one value."""
    if isinstance(value, bool):
        return pb.SessionOptionValue(bool_value=value)
    if isinstance(value, int):
        return pb.SessionOptionValue(int64_value=value)
    if isinstance(value, float):
        return pb.SessionOptionValue(double_value=value)
    if isinstance(value, str):
        return pb.SessionOptionValue(string_value=value)
    return pb.SessionOptionValue(string_list_value=pb.SessionOptionValue.StringListValue(values=value))


def _read(message: pb.SessionOptionValue) -> OptionValue | None:
    kind = message.WhichOneof("option_value")
    if kind is None:
        return None
    if kind == "string_list_value":
        return list(message.string_list_value.values)
    value = getattr(message, kind)
    if isinstance(value, (str, bool, int, float)):
        return value
    raise MalformedError(f"a session option of an unknown kind: {kind}")
