"""Where the fuzzing starts: one sound payload of every kind that the server takes apart."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import BytesValue
from pyarrow import flight

from flight_server.request import ReadRequest
from flight_server.sql.handles import Handle, ticket_for
from flight_server.tickets import TicketSigner
from flight_sql import pack
from flight_sql.commands import ACTIONS, COMMANDS

CORPUS = json.loads(Path(__file__).with_name("corpus.json").read_text())
SIGNER = TicketSigner(b"a key that is known here")
IDENTITY = "anonymous"


@dataclass(frozen=True)
class Seed:
    """A sound payload.

    Attributes
    ----------
    kind
        Which parser it is for: ``request``, ``path``, ``headers``, ``ticket``, ``any`` or ``action``.
    raw
    name
        Of the action.
    """

    kind: str
    raw: bytes
    name: str = ""


def seeds() -> list[Seed]:
    """Return all of them."""
    ticket = SIGNER.seal(ReadRequest(sql="select 1 as a"), IDENTITY, "digest")
    handle = Handle(ticket=ticket, schema="public", id="1", targets=(23, 25), rows=(("1", None),))
    info = flight.FlightInfo(
        None, flight.FlightDescriptor.for_path("fuzzed"), [flight.FlightEndpoint(ticket, [])], -1, -1
    )
    found = [Seed("request", text.encode()) for text in CORPUS["requests"]]
    found += [Seed("path", json.dumps(path).encode()) for path in CORPUS["paths"]]
    found += [Seed("headers", json.dumps(headers).encode()) for headers in CORPUS["headers"]]
    found += [Seed("ticket", ticket), Seed("ticket", handle.encode()), Seed("any", ticket_for(handle))]
    found += [Seed("any", pack(filled(command.message()))) for command in COMMANDS]
    for action in ACTIONS:
        message = filled(action.message())
        found.append(Seed("action", pack(message) if action.packed else message.SerializeToString(), action.name))
    found.append(Seed("action", BytesValue(value=info.serialize()).SerializeToString(), "CancelFlightInfo"))
    endpoint = info.endpoints[0].serialize()
    found.append(Seed("action", BytesValue(value=endpoint).SerializeToString(), "RenewFlightEndpoint"))
    return found


def filled(message: Message) -> Message:
    """Give every field of a message a value."""
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            _fill_map(value, field.message_type.fields_by_name["value"])
        elif field.message_type is not None:
            filled(value.add() if field.is_repeated else value)
        elif field.is_repeated:
            value.append(_value(field))
        else:
            setattr(message, field.name, _value(field))
    return message


def _fill_map(entries: Any, value: Any) -> None:
    if value.message_type is not None:
        filled(entries["schema"])
    else:
        entries["schema"] = _value(value)


def _value(field: Any) -> object:
    if field.cpp_type == field.CPPTYPE_STRING:
        return b"handle" if field.type == field.TYPE_BYTES else "select 1"
    return field.enum_type.values[-1].number if field.enum_type else 1
