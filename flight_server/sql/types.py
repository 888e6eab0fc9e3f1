"""PostgreSQL's types as JDBC and ODBC number them, and what a column's type says of its values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
from pyarrow import types

from flight_sql.columns import ColumnFacts
from flight_sql.proto import flight_sql_pb2 as pb

MODIFIERS: Final = re.compile(r"\s*\(([\d,\s-]+)\)")
DECIMAL, BINARY_RADIX = 10, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class XdbcType:
    """A row of CommandGetXdbcTypeInfo.

    Parameters
    ----------
    name : str
        As SQL writes it.
    number : int
        Of the enumeration XdbcDataType.
    size : int or None
        Digits of a number, characters or bytes of a value.
    quote : bool
        Whether literals stand in quotes.
    params : tuple of str
        What may stand in brackets behind the name.
    case_sensitive : bool
    scale : tuple of int or None
        Least and largest number of digits behind the point.
    subcode : int or None
        Of the enumeration XdbcDatetimeSubcode; the generic number is then that of datetime or interval.
    radix : int or None
        10 or 2 for numbers, whose `size` counts such digits.
    auto_increment : bool
    """

    name: str
    number: int
    size: int | None = None
    quote: bool = True
    params: tuple[str, ...] = ()
    case_sensitive: bool = False
    scale: tuple[int, int] | None = None
    subcode: int | None = None
    radix: int | None = None
    auto_increment: bool = False

    def row(self) -> tuple[Any, ...]:
        """Return the values in the order of the result's columns."""
        generic = self.number
        if self.subcode is not None:
            generic = pb.XDBC_INTERVAL if self.number == pb.XDBC_INTERVAL else pb.XDBC_DATETIME
        low, high = self.scale or (None, None)
        is_number = self.radix is not None
        quote = "'" if self.quote else None
        return (
            self.name, self.number, self.size, quote, quote, list(self.params) or None, pb.NULLABILITY_NULLABLE,
            self.case_sensitive, pb.SEARCHABLE_FULL, False if is_number else None, False,
            self.auto_increment if is_number else None, self.name, low, high, generic, self.subcode, self.radix,
            None,
        )  # fmt: skip


def _number(name: str, number: int, size: int, radix: int = DECIMAL, **more: Any) -> XdbcType:
    return XdbcType(name=name, number=number, size=size, quote=False, radix=radix, **more)


def _text(name: str, number: int, *params: str, size: int | None = None) -> XdbcType:
    return XdbcType(name=name, number=number, size=size, params=params, case_sensitive=True)


def _time(name: str, number: int, size: int, subcode: int, *params: str) -> XdbcType:
    scale = (0, 6) if params else None
    return XdbcType(name=name, number=number, size=size, subcode=subcode, params=params, scale=scale)


MAX_CHARACTERS: Final = 10_485_760
MAX_DIGITS: Final = 1000

XDBC_TYPES: Final = tuple(sorted((
    XdbcType(name="boolean", number=pb.XDBC_BIT, size=1, quote=False),
    _number("bigint", pb.XDBC_BIGINT, 19, scale=(0, 0)),
    _number("bigserial", pb.XDBC_BIGINT, 19, scale=(0, 0), auto_increment=True),
    XdbcType(name="bytea", number=pb.XDBC_VARBINARY),
    _text("text", pb.XDBC_LONGVARCHAR), _text("json", pb.XDBC_LONGVARCHAR), _text("jsonb", pb.XDBC_LONGVARCHAR),
    _text("xml", pb.XDBC_LONGVARCHAR),
    _text("character", pb.XDBC_CHAR, "length", size=MAX_CHARACTERS),
    _text("uuid", pb.XDBC_CHAR, size=36),
    _text("character varying", pb.XDBC_VARCHAR, "max length", size=MAX_CHARACTERS),
    _text("name", pb.XDBC_VARCHAR, size=63),
    _number(
        "numeric", pb.XDBC_NUMERIC, MAX_DIGITS, params=("precision", "scale"), scale=(-MAX_DIGITS, MAX_DIGITS)
    ),
    _number("integer", pb.XDBC_INTEGER, 10, scale=(0, 0)),
    _number("serial", pb.XDBC_INTEGER, 10, scale=(0, 0), auto_increment=True),
    _number("smallint", pb.XDBC_SMALLINT, 5, scale=(0, 0)),
    _number("real", pb.XDBC_REAL, 24, radix=BINARY_RADIX),
    _number("double precision", pb.XDBC_DOUBLE, 53, radix=BINARY_RADIX),
    _time("date", pb.XDBC_DATE, 13, pb.XDBC_SUBCODE_DATE),
    _time("time without time zone", pb.XDBC_TIME, 15, pb.XDBC_SUBCODE_TIME, "precision"),
    _time("time with time zone", pb.XDBC_TIME, 21, pb.XDBC_SUBCODE_TIME_WITH_TIMEZONE, "precision"),
    _time("timestamp without time zone", pb.XDBC_TIMESTAMP, 29, pb.XDBC_SUBCODE_TIMESTAMP, "precision"),
    _time(
        "timestamp with time zone", pb.XDBC_TIMESTAMP, 35, pb.XDBC_SUBCODE_TIMESTAMP_WITH_TIMEZONE, "precision"
    ),
    _time("interval", pb.XDBC_INTERVAL, 49, pb.XDBC_SUBCODE_INTERVAL_DAY_TO_SECOND, "precision"),
), key=lambda kind: (kind.number, kind.name)))  # fmt: skip
"""By number, then name."""

PRECISION: Final = {"smallint": 5, "integer": 10, "bigint": 19, "real": 7, "double precision": 15}
"""Decimal digits that a number of a type without modifiers always keeps."""


def facts(field: pa.Field) -> dict[str, Any]:
    """Return what a field's PostgreSQL type (its metadata ``pg:type``) says of the column.

    Returns
    -------
    dict
        Arguments of ColumnFacts.
    """
    metadata = field.metadata or {}
    display = metadata.get(b"pg:type", b"").decode()
    found = MODIFIERS.search(display)
    modifiers = [int(part) for part in found[1].split(",")] if found else []
    name = MODIFIERS.sub("", display, count=1)
    known: dict[str, Any] = {"type_name": name or None, "precision": PRECISION.get(name)}
    if types.is_decimal(field.type):
        known |= {"precision": field.type.precision, "scale": field.type.scale}
    elif name.startswith(("character", "bit", "numeric")):
        known |= dict(zip(("precision", "scale"), modifiers, strict=False))
    elif name in PRECISION and types.is_integer(field.type):
        known["scale"] = 0
    if b"pg:comment" in metadata:
        known["remarks"] = metadata[b"pg:comment"].decode()
    if types.is_string(field.type):
        known["is_case_sensitive"] = name != "citext"
    return known


def with_facts(schema: pa.Schema) -> pa.Schema:
    """Return a result's schema with what Flight SQL's clients read about its columns."""
    fields = []
    for field in schema:
        told = ColumnFacts(is_read_only=True, is_searchable=True, **facts(field)).metadata()
        fields.append(field.with_metadata({**(field.metadata or {}), **told}))
    return pa.schema(fields, schema.metadata)
