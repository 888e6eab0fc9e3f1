"""What a client asks for, in the words of the wire: table names and queries to Flight descriptors."""

import datetime as dt
import decimal
import json
import math
import re
import uuid
from collections.abc import Mapping, Sequence

from pyarrow import flight

_PART = r'[A-Za-z_\u0080-\U0010ffff][\w$]*|"(?:[^"\x00]|"")+"'
_NAME = re.compile(rf"(?:(?P<schema>{_PART})\.)?(?P<table>{_PART})")
_ASCII_LOWER = str.maketrans({upper: upper.lower() for upper in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"})
_NEEDS_NO_QUOTES = re.compile(r"[a-z_][a-z0-9_$]*")

TablePath = tuple[str] | tuple[str, str]


def table_path(name: str) -> TablePath | None:
    """Read a table's name as PostgreSQL does: unquoted parts fold to lower case, quoted ones stay.

    Parameters
    ----------
    name
        ``table``, ``schema.table``, or the same with double-quoted parts.

    Returns
    -------
    tuple of str or None
        ``(table,)`` or ``(schema, table)``, unquoted; None if `name` is not a table's name (then it is SQL).
    """
    match = _NAME.fullmatch(name.strip())
    if match is None:
        return None
    table = _unquote(match["table"])
    return (table,) if match["schema"] is None else (_unquote(match["schema"]), table)


def query_descriptor(
    query: str, params: Sequence[object] | None, options: Mapping[str, object]
) -> flight.FlightDescriptor:
    """Describe a query: a string that is a table's name is that table, anything else is SQL.

    Raises
    ------
    ValueError
        Parameters were given for a table, or a value has no JSON form.
    """
    path = table_path(query)
    if path is not None:
        if params:
            raise ValueError(f"parameters go with SQL, and {query!r} names a table")
        return table_descriptor(query, None, None, None, options)
    request: dict[str, object] = {"sql": query}
    if params:
        request["params"] = [_finite(value) for value in params]
    return _command(request, options, plain=query)


def table_descriptor(
    name: str,
    columns: Sequence[str] | None,
    where: str | None,
    limit: int | None,
    options: Mapping[str, object],
) -> flight.FlightDescriptor:
    """Describe a table, or some of its columns and rows.

    Raises
    ------
    ValueError
        `name` is not ``table`` or ``schema.table``, or a value has no JSON form.
    """
    path = table_path(name)
    if path is None:
        raise ValueError(f"not a table's name: {name!r} (expected table or schema.table)")
    if isinstance(columns, str):
        raise TypeError(f"columns is a sequence of names, not the string {columns!r}")
    request: dict[str, object] = {
        "table": ".".join(_quote(part) for part in path),
        "columns": None if columns is None else list(columns),
        "where": where,
        "limit": limit,
    }
    given = {key: value for key, value in request.items() if value is not None}
    if len(given) == 1 and not _given(options):
        return flight.FlightDescriptor.for_path(*path)
    return _command(given, options)


def _command(
    request: dict[str, object], options: Mapping[str, object], plain: str | None = None
) -> flight.FlightDescriptor:
    """Encode as JSON; as `plain` text where the request says no more and cannot be taken for JSON."""
    given = _given(options)
    if given:
        request["options"] = given
    if plain is not None and len(request) == 1 and not plain.lstrip().startswith("{"):
        return flight.FlightDescriptor.for_command(plain.encode())
    text = json.dumps(request, default=_json_value, allow_nan=False, ensure_ascii=False)
    return flight.FlightDescriptor.for_command(text.encode())


def _given(options: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in options.items() if value is not None}


def _finite(value: object) -> object:
    """JSON has no NaN and no infinity; PostgreSQL reads them from text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _json_value(value: object) -> object:
    """Write the common Python types as text that PostgreSQL's input functions read."""
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal | uuid.UUID):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return "\\x" + bytes(value).hex()
    raise ValueError(f"a value of type {type(value).__name__} has no JSON form: pass it as text")


def _unquote(part: str) -> str:
    if part.startswith('"'):
        return part[1:-1].replace('""', '"')
    return part.translate(_ASCII_LOWER)


def _quote(part: str) -> str:
    if _NEEDS_NO_QUOTES.fullmatch(part):
        return part
    return '"' + part.replace('"', '""') + '"'
