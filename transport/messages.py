"""PostgreSQL's message protocol, version 3: the few messages sent and read beside rows.

Source: "Message Formats" in the PostgreSQL documentation.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from kernels.errors import PostgresError

ERROR_RESPONSE = ord("E")
NOTICE_RESPONSE = ord("N")
PARAMETER_STATUS = ord("S")
NOTIFICATION_RESPONSE = ord("A")
COMMAND_COMPLETE = ord("C")
READY_FOR_QUERY = ord("Z")
COPY_OUT_RESPONSE = ord("H")
COPY_DONE = ord("c")
ROW_DESCRIPTION = ord("T")
PARSE_COMPLETE = ord("1")
BIND_COMPLETE = ord("2")

READY_BYTES = 6
"""Size of a whole ReadyForQuery message."""


@dataclass(frozen=True, slots=True)
class Request:
    """A statement whose rows are wanted in binary.

    Parameters
    ----------
    sql : str
        The statement; with `copy`, a complete ``COPY … TO STDOUT (FORMAT BINARY)``.
    copy : bool
        Whether the reply is a COPY stream, or DataRows of the extended protocol.
    parameters : sequence of (str or None)
        Text forms of ``$1`` …; only without `copy`.
    """

    sql: str
    copy: bool
    parameters: Sequence[str | None] = ()

    def encode(self) -> bytes:
        """Return the messages that ask for it."""
        text = self.sql.encode()
        if self.copy:
            return message(b"Q", text + b"\0")
        return b"".join(
            (
                message(b"P", b"\0" + text + b"\0" + struct.pack("!h", 0)),
                message(b"B", b"\0\0" + _parameters(self.parameters) + struct.pack("!hh", 1, 1)),
                message(b"E", b"\0" + struct.pack("!i", 0)),
                message(b"S", b""),
            )
        )


def message(kind: bytes, payload: bytes) -> bytes:
    """Frame a message: type, length of length and payload, payload."""
    return kind + struct.pack("!i", len(payload) + 4) + payload


def _parameters(values: Sequence[str | None]) -> bytes:
    parts = [struct.pack("!hh", 0, len(values))]
    for value in values:
        encoded = None if value is None else value.encode()
        parts.append(struct.pack("!i", -1 if encoded is None else len(encoded)))
        parts.append(encoded or b"")
    return b"".join(parts)


def fields(payload: bytes) -> dict[str, str]:
    """Split the payload of an ErrorResponse or NoticeResponse into its fields, by field type."""
    parts = payload.split(b"\0")
    return {chr(part[0]): part[1:].decode("utf-8", "replace") for part in parts if part}


def error(parts: dict[str, str]) -> PostgresError:
    """Make the error that an ErrorResponse's fields describe."""
    text = parts.get("M", "unknown error")
    for label, key in (("detail", "D"), ("hint", "H"), ("at character", "P")):
        if key in parts:
            text += f"; {label}: {parts[key]}" if key != "P" else f" ({label} {parts[key]})"
    return PostgresError(text, parts.get("C", "XX000"))


def row_count(tag: bytes) -> int | None:
    """Return the number of rows a CommandComplete tag claims (``COPY 5``, ``SELECT 5``), None if it does not."""
    verb, _, number = tag.rstrip(b"\0").decode("ascii", "replace").rpartition(" ")
    return int(number) if verb in ("COPY", "SELECT", "FETCH", "MOVE") and number.isdigit() else None
