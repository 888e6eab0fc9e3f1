"""A second, slow decoder in plain Python: from PostgreSQL's documented formats, not from the kernels.

Values are compared in a canonical form: integers for integers, dates and times in Arrow's unit and epoch;
the bits of floats as integers; decimals as digits; text, bytes and booleans as themselves; an interval as
(months, days, nanoseconds).  `canonical` brings Arrow arrays into that form, `decode` wire bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow as pa

from kernels.column import Column

EPOCH_DAYS = 10_957
EPOCH_MICROS = EPOCH_DAYS * 86_400_000_000
INT64 = 2**63
UNSIGNED = (24, 26, 28, 29, 2202, 2203, 2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191, 8326)
TEXTS = (19, 25, 114, 142, 705, 1042, 1043, 1790, 2275, 2278)
HARMLESS = b"12HTcCNSA"
"""Messages that may stand beside rows in a reply."""


class RefusedError(Exception):
    """The oracle does not accept the bytes.

    Parameters
    ----------
    why : str
    column : int or None
    out_of_range : bool
        The bytes are sound, but Arrow has no such value.
    """

    def __init__(self, why: str, column: int | None = None, *, out_of_range: bool = False) -> None:
        super().__init__(why)
        self.column = column
        self.out_of_range = out_of_range
        self.inside = False
        """Whether the field lies in its row, and only its bytes are wrong."""


class Loose(str):
    """A numeric that PostgreSQL would not have written so: the kernels may refuse it, or read the same digits."""

    __slots__ = ()


@dataclass(frozen=True)
class Policy:
    """What to make of infinite dates and times."""

    infinity_is_null: bool = False


def canonical(array: pa.Array | pa.ChunkedArray) -> list[Any]:
    """Return the values of an Arrow array in canonical form."""
    if isinstance(array, pa.ChunkedArray):
        return [value for chunk in array.chunks for value in canonical(chunk)]
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    kind = array.type
    if pa.types.is_floating(kind):
        return array.view(pa.uint32() if kind.bit_width == 32 else pa.uint64()).to_pylist()
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        return array.view(pa.int32() if kind.bit_width == 32 else pa.int64()).to_pylist()
    values = array.to_pylist()
    if pa.types.is_decimal(kind):
        return [None if value is None else digits(value) for value in values]
    if pa.types.is_interval(kind):
        return [None if value is None else tuple(value) for value in values]
    return values


def digits(value: Decimal) -> str:
    """Write a decimal as PostgreSQL does: no exponent, no negative zero."""
    return format(abs(value) if value == 0 else value, "f")


def decode(
    columns: Sequence[Column], wire: bytes, framing: str, policy: Policy | None = None
) -> list[tuple[Any, ...]]:
    """Return the rows of a whole reply, or raise RefusedError."""
    rows: list[tuple[Any, ...]] = []
    kind = ord("d" if framing == "copy" else "D")
    complete, trailer, done, header, claimed = False, False, False, framing == "copy", None
    at = 0
    while True:
        if at + 5 > len(wire):
            raise RefusedError("the reply ends early")
        letter, size = wire[at], struct.unpack_from("!i", wire, at + 1)[0]
        if size < 4 or at + 1 + size > len(wire):
            raise RefusedError("the message's length is impossible")
        payload = wire[at + 5 : at + 1 + size]
        at += 1 + size
        if letter == kind:
            if header:
                payload, header = _without_copy_header(payload), False
            if trailer:
                raise RefusedError("a row behind the trailer")
            if framing == "copy" and payload == b"\xff\xff":
                trailer = True
                continue
            rows.append(read_row(columns, payload, policy))
        elif letter == ord("Z"):
            break
        elif letter == ord("E"):
            raise RefusedError("PostgreSQL reports an error")
        elif letter == ord("C"):
            complete, claimed = True, _claimed(payload)
        elif letter == ord("S") and payload.startswith(b"client_encoding\0") and payload[16:-1] != b"UTF8":
            raise RefusedError("text in another encoding")
        elif letter not in HARMLESS:
            raise RefusedError(f"message {letter:#x} has no place here")
        done = done or letter == ord("c")
    if not complete or (claimed is not None and claimed != len(rows)):
        raise RefusedError("CommandComplete is missing or counts other rows")
    if framing == "copy" and not (trailer and done):
        raise RefusedError("COPY did not end")
    return rows


def read_row(columns: Sequence[Column], payload: bytes, policy: Policy | None = None) -> tuple[Any, ...]:
    """Return the values of one row."""
    policy = policy or Policy()
    if len(payload) < 2 or struct.unpack_from("!h", payload)[0] != len(columns):
        raise RefusedError("the number of fields is another")
    at, values = 2, []
    for index, column in enumerate(columns):
        if at + 4 > len(payload):
            raise RefusedError("the row ends early", index)
        size = struct.unpack_from("!i", payload, at)[0]
        at += 4
        if size == -1:
            values.append(None)
            continue
        if size < 0 or at + size > len(payload):
            raise RefusedError("the field's length is impossible", index)
        try:
            values.append(_reader(column)(payload[at : at + size], column, policy))
        except RefusedError as refused:
            refused.column, refused.inside = index, True
            raise
        at += size
    if at != len(payload):
        raise RefusedError("the row does not end with its last field", len(columns) - 1)
    return tuple(values)


def _without_copy_header(payload: bytes) -> bytes:
    if payload[:11] != b"PGCOPY\n\xff\r\n\0" or len(payload) < 19:
        raise RefusedError("the COPY signature is missing")
    flags, extension = struct.unpack_from("!II", payload, 11)
    if flags >> 16 or 19 + extension > len(payload):
        raise RefusedError("the COPY header is of another kind")
    return payload[19 + extension :]


def _claimed(payload: bytes) -> int | None:
    words = payload.rstrip(b"\0").split(b" ")
    known = words[0] in (b"COPY", b"SELECT", b"FETCH", b"MOVE")
    return int(words[1]) if known and len(words) == 2 and words[1].isdigit() else None


Reader = Callable[[bytes, Column, Policy], Any]


def _reader(column: Column) -> Reader:
    oid = column.type_oid
    if oid in UNSIGNED:
        return _unsigned4
    if oid in TEXTS or column.kind == "e" or column.send == "citextsend":
        return _text
    return READERS.get(oid, _bytes)


def _exact(value: bytes, size: int) -> bytes:
    if len(value) != size:
        raise RefusedError(f"{len(value)} bytes instead of {size}")
    return value


def _integer(size: int, *, signed: bool = True) -> Reader:
    return lambda value, _column, _policy: int.from_bytes(_exact(value, size), "big", signed=signed)


_unsigned4 = _integer(4, signed=False)


def _bool(value: bytes, _column: Column, _policy: Policy) -> bool:
    number = _exact(value, 1)[0]
    if number > 1:
        raise RefusedError("neither true nor false")
    return number == 1


def _bytes(value: bytes, _column: Column, _policy: Policy) -> bytes:
    return value


def _text(value: bytes, _column: Column, _policy: Policy) -> str:
    try:
        return value.decode("utf-8", "strict")
    except UnicodeDecodeError as failure:
        raise RefusedError(str(failure)) from None


def _versioned(value: bytes, column: Column, policy: Policy) -> str:
    if value[:1] != b"\1":
        raise RefusedError("another version")
    return _text(value[1:], column, policy)


def _temporal(size: int, shift: int) -> Reader:
    """Dates and timestamps: the ends of the range are the infinities, and Arrow counts from 1970."""
    top = 2 ** (8 * size - 1)

    def read(value: bytes, _column: Column, policy: Policy) -> int | None:
        number = int.from_bytes(_exact(value, size), "big", signed=True)
        if number in (top - 1, -top):
            if policy.infinity_is_null:
                return None
            raise RefusedError("infinite", out_of_range=True)
        if number + shift >= top:
            raise RefusedError("beyond Arrow's range", out_of_range=True)
        return number + shift

    return read


def _time(value: bytes, _column: Column, _policy: Policy) -> int:
    number = int.from_bytes(_exact(value, 8), "big", signed=True)
    if not 0 <= number < 86_400_000_000:
        raise RefusedError("not a time of day for Arrow", out_of_range=True)
    return number


def _interval(value: bytes, _column: Column, policy: Policy) -> tuple[int, int, int] | None:
    micros, days, months = struct.unpack("!qii", _exact(value, 16))
    if (micros, days, months) in ((INT64 - 1, 2**31 - 1, 2**31 - 1), (-INT64, -(2**31), -(2**31))):
        if policy.infinity_is_null:
            return None
        raise RefusedError("infinite", out_of_range=True)
    if not -INT64 < 1000 * micros < INT64:
        raise RefusedError("beyond Arrow's range", out_of_range=True)
    return months, days, 1000 * micros


def _numeric(value: bytes, column: Column, _policy: Policy) -> str:
    if len(value) < 8:
        raise RefusedError("no numeric header")
    count, weight, sign, _display = struct.unpack_from("!hhHH", value)
    if count < 0 or len(value) != 8 + 2 * count:
        raise RefusedError("the digits do not fill the field")
    if sign in (0xC000, 0xD000, 0xF000):
        raise RefusedError("not a number", out_of_range=True)
    if sign not in (0, 0x4000):
        raise RefusedError("an impossible sign")
    groups = struct.unpack_from(f"!{count}h", value, 8)
    if any(not 0 <= group <= 9999 for group in groups):
        raise RefusedError("an impossible digit")
    precision, scale = _precision_and_scale(column.typmod)
    number = 0
    for group in groups:
        number = number * 10_000 + group
    # The last group counts 10000 ** (weight - count + 1); as a multiple of 10 ** -scale:
    shift = 4 * (weight - count + 1) + scale
    if abs(shift) > 140_000 or (shift < 0 and number % 10**-shift):
        raise RefusedError("more digits than declared", out_of_range=True)
    number = number * 10**shift if shift >= 0 else number // 10**-shift
    if number >= 10**precision:
        raise RefusedError("more digits than declared", out_of_range=True)
    text = digits(Decimal(f"{'-' if sign else ''}{number}E{-scale}"))
    sound = not groups or (groups[0] != 0 and groups[-1] != 0)
    return text if sound else Loose(text)


def _precision_and_scale(typmod: int) -> tuple[int, int]:
    scale = (typmod - 4) & 0x7FF
    return (typmod - 4) >> 16, scale - 2048 if scale >= 1024 else scale


READERS: dict[int, Reader] = {
    16: _bool,
    17: _bytes,
    20: _integer(8),
    21: _integer(2),
    23: _integer(4),
    700: _integer(4, signed=False),  # the bits
    701: _integer(8, signed=False),
    1082: _temporal(4, EPOCH_DAYS),
    1083: _time,
    1114: _temporal(8, EPOCH_MICROS),
    1184: _temporal(8, EPOCH_MICROS),
    1186: _interval,
    1700: _numeric,
    2950: lambda value, _column, _policy: _exact(value, 16),
    3220: _integer(8, signed=False),
    3802: _versioned,
    4072: _versioned,
    5069: _integer(8, signed=False),
}
