"""Handles of statements: a ticket of the server, and what Flight SQL adds to it.

A handle says all that is needed to run its statement, so any replica can: the server's own ticket has the
statement, the options, whom it was issued to and how long it is good for; beside it stand the session's schema and
the parameters, unless they are too many and stay with the server that received them.  Only the ticket is signed:
who may open it may run the same statement with any parameters in any schema.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyarrow import flight

from flight_server import tickets
from flight_server.request import Row
from flight_sql import is_packed, pack
from flight_sql.envelope import parse, type_url, unpack
from flight_sql.errors import FlightSqlError
from flight_sql.proto import flight_sql_pb2 as pb
from kernels.errors import TicketError

PREFIX = b"pgq1."
"""Version of the format."""
MAX_CARRIED_BYTES = 64 << 10
"""Parameters beyond this stay with the server."""
MAX_HANDLE_BYTES = tickets.MAX_TICKET_BYTES + 4 * MAX_CARRIED_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Handle:
    """What a handle says.

    Parameters
    ----------
    ticket : bytes
        The server's ticket, for the statement without its parameters.
    schema : str
        Where names without a schema are looked up; empty for the role's own path.
    id : str
        Names a prepared statement; empty where there is none.
    targets : tuple of int
        OIDs of the types of its parameters.
    rows : tuple of Row or None
        The parameters, one row for each run; None where none were bound, or where they are kept.
    kept : str
        Names the parameters where the server keeps them.
    transaction : str
        In which the statement runs; empty for one of its own.
    outcome : str
        Names the result of a statement that has been executed, where the server keeps it.
    """

    ticket: bytes
    schema: str = ""
    id: str = ""
    targets: tuple[int, ...] = ()
    rows: tuple[Row, ...] | None = None
    kept: str = ""
    transaction: str = ""
    outcome: str = ""

    def encode(self) -> bytes:
        """Return the handle's bytes: the bare ticket where that says it all."""
        parts = {
            "s": self.schema, "i": self.id, "p": self.targets, "k": self.kept, "x": self.transaction,
            "o": self.outcome,
        }  # fmt: skip
        said: dict[str, Any] = {key: value for key, value in parts.items() if value}
        if self.rows is not None:
            said["r"] = self.rows
        if not said:
            return self.ticket
        return PREFIX + json.dumps({"t": self.ticket.decode("ascii"), **said}, separators=(",", ":")).encode()


def decode(raw: bytes) -> Handle:
    """Read a handle; its ticket is still to be opened.

    Raises
    ------
    TicketError
        It is none of ours.
    """
    if len(raw) > MAX_HANDLE_BYTES:
        raise TicketError(f"the handle has {len(raw)} bytes; at most {MAX_HANDLE_BYTES} are accepted")
    if not raw.startswith(PREFIX):
        return Handle(ticket=raw)
    try:
        return _read(json.loads(raw.removeprefix(PREFIX)))
    except (ValueError, OverflowError, KeyError, TypeError, AttributeError, RecursionError) as failure:
        raise TicketError("the handle was not issued by this server, or was changed") from failure


def ticket_for(handle: Handle) -> bytes:
    """Return the bytes of the Flight ticket that reads a handle."""
    return pack(pb.TicketStatementQuery(statement_handle=handle.encode()))


def server_ticket(endpoint: flight.FlightEndpoint) -> bytes:
    """Return the server's own ticket in an endpoint, whichever protocol issued it.

    Raises
    ------
    TicketError
        The endpoint reads metadata, or is none of ours.
    """
    raw = endpoint.ticket.ticket
    if not is_packed(raw):
        return bytes(raw)
    try:
        packed = unpack(raw)
        if packed.type_url != type_url(pb.TicketStatementQuery):
            raise TicketError("the endpoint belongs to no statement")
        return decode(parse(pb.TicketStatementQuery, packed.value).statement_handle).ticket
    except FlightSqlError as failure:
        raise TicketError("the ticket was not issued by this server, or was changed") from failure


def _read(parts: dict[str, Any]) -> Handle:
    rows = parts.get("r")
    return Handle(
        ticket=parts["t"].encode("ascii"),
        schema=_text(parts.get("s", "")),
        id=_text(parts.get("i", "")),
        targets=tuple(int(oid) for oid in parts.get("p", ())),
        rows=None if rows is None else tuple(_row(row) for row in rows),
        kept=_text(parts.get("k", "")),
        transaction=_text(parts.get("x", "")),
        outcome=_text(parts.get("o", "")),
    )


def _row(values: Sequence[Any]) -> Row:
    return tuple(None if value is None else _text(value) for value in values)


def _text(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("no text")
    return value
