"""Constants of PostgreSQL's COPY BINARY format and message protocol (version 3).

Sources: "COPY", section "Binary Format", and "Message Formats" in the PostgreSQL documentation.
"""

from __future__ import annotations

from typing import Final

from kernels.errors import DecodeError

COPY_DATA: Final = ord("d")
"""One row in COPY, behind the COPY header in the first message."""
DATA_ROW: Final = ord("D")
"""One row in the extended protocol."""

MESSAGE_HEAD_BYTES: Final = 5
"""Type byte and int32 length; the length counts itself but not the type."""

COPY_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\x00"
COPY_HEADER_BYTES: Final = len(COPY_SIGNATURE) + 8
"""Signature, int32 flags, int32 length of the extension that follows."""

POSTGRES_EPOCH_DAYS: Final = 10957
"""1970-01-01 to 2000-01-01, in days."""
POSTGRES_EPOCH_MICROS: Final = POSTGRES_EPOCH_DAYS * 86_400_000_000
"""1970-01-01 to 2000-01-01, in microseconds."""
DAY_MICROS: Final = 86_400_000_000


def copy_header_size(payload: bytes) -> int:
    """Return the size in bytes of the COPY header at the start of the first message's payload.

    Raises
    ------
    DecodeError
        The signature is wrong, a critical flag is set, or the header does not end inside the payload.
    """
    if payload[: len(COPY_SIGNATURE)] != COPY_SIGNATURE or len(payload) < COPY_HEADER_BYTES:
        raise DecodeError("the reply does not begin with the COPY BINARY signature", row=0, offset=0)
    flags = int.from_bytes(payload[11:15], "big")
    if flags >> 16:
        raise DecodeError(f"COPY BINARY header with critical flags {flags:#x}", row=0, offset=11)
    size = COPY_HEADER_BYTES + int.from_bytes(payload[15:19], "big")
    if size > len(payload):
        raise DecodeError("the COPY BINARY header does not end in the first message", row=0, offset=15)
    return size
