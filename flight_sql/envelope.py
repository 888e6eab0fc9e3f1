"""google.protobuf.Any, in which commands, tickets and the bodies of actions travel."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError, Message

from flight_sql.errors import MalformedError

M = TypeVar("M", bound=Message)

TYPE_PREFIX = "type.googleapis.com/"
_TYPE_URL_TAG = b"\x0a"


def type_url(kind: type[Message]) -> str:
    """Return the name by which a message type travels."""
    return TYPE_PREFIX + str(kind.DESCRIPTOR.full_name)


def is_packed(raw: bytes) -> bool:
    """Tell whether bytes begin like a packed message: no SQL and no JSON does."""
    # Every encoder writes the type's name first; its length takes one or two bytes.
    prefix = TYPE_PREFIX.encode()
    return raw[:1] == _TYPE_URL_TAG and (raw.startswith(prefix, 2) or raw.startswith(prefix, 3))


def pack(message: Message) -> bytes:
    """Return a message inside an Any."""
    return bytes(Any(type_url=type_url(type(message)), value=message.SerializeToString()).SerializeToString())


def unpack(raw: bytes) -> Any:
    """Return the Any in the bytes.

    Raises
    ------
    MalformedError
    """
    try:
        return Any.FromString(raw)
    except DecodeError as failure:
        raise MalformedError("the bytes are no google.protobuf.Any") from failure


def parse(kind: type[M], raw: bytes) -> M:
    """Return a message of a known type.

    Raises
    ------
    MalformedError
    """
    try:
        return kind.FromString(raw)
    except DecodeError as failure:
        raise MalformedError(f"the bytes are no {kind.DESCRIPTOR.name}") from failure
