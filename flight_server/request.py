"""The request grammar: a Flight descriptor, or the bytes of a ticket, -> ReadRequest."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flight_server.options import ReadOptions, parse_options
from kernels.errors import RequestError

MAX_REQUEST_BYTES = 1 << 20
"""Longest descriptor, ticket or statement that is looked at."""
Row = tuple[str | None, ...]
"""Text forms of a statement's parameters."""
KEYS = frozenset(("sql", "params", "table", "columns", "where", "limit", "options"))
TABLE_KEYS = frozenset(("columns", "where", "limit"))


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """What is to be read: a statement, or a table with a projection and a filter.

    Parameters
    ----------
    sql : str or None
        One statement that returns rows.
    params : tuple of (str or None)
        Text forms of the statement's ``$1`` ….
    table : tuple of str or None
        ``(name,)`` or ``(schema, name)``.
    columns : tuple of str or None
        Columns of the table; None for all.
    where : str or None
        SQL condition over the table's columns.
    limit : int or None
        Rows wanted at most.
    options : ReadOptions
    rows : tuple of rows of (str or None), optional
        Parameters for several runs of the statement, whose results follow one another; `params` is one of them.
        Not in the JSON form, as the next.
    search_path : str
        The schema in which names without one are looked up; empty for the role's own path.
    """

    sql: str | None = None
    params: tuple[str | None, ...] = ()
    table: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None
    where: str | None = None
    limit: int | None = None
    options: ReadOptions = field(default_factory=ReadOptions)
    rows: tuple[Row, ...] | None = None
    search_path: str = ""

    @property
    def is_whole_relation(self) -> bool:
        """Whether the rows are those of one relation, none left out."""
        return self.table is not None and self.where is None and self.limit is None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form of the same grammar."""
        parts: dict[str, Any] = {}
        if self.sql is not None:
            parts["sql"] = self.sql
        if self.params:
            parts["params"] = list(self.params)
        if self.table is not None:
            parts["table"] = list(self.table)
        if self.columns is not None:
            parts["columns"] = list(self.columns)
        if self.where is not None:
            parts["where"] = self.where
        if self.limit is not None:
            parts["limit"] = self.limit
        if changed := self.options.changed():
            parts["options"] = changed
        return parts


def parse_path(path: Sequence[bytes], defaults: Mapping[str, Any]) -> ReadRequest:
    """Parse a path descriptor: ``("table",)`` or ``("schema", "table")``."""
    names = tuple(_text(part) for part in path)
    return ReadRequest(table=_table(list(names)), options=parse_options(defaults))


def parse_command(command: bytes, defaults: Mapping[str, Any]) -> ReadRequest:
    """Parse a command: SQL, or one JSON object.

    Parameters
    ----------
    command : bytes
        UTF-8 text.
    defaults : mapping
        Options from the call's headers; those of the JSON object win.

    Raises
    ------
    RequestError
        It is neither, or a key or an option is wrong.
    """
    if len(command) > MAX_REQUEST_BYTES:
        raise RequestError(f"the request has {len(command)} bytes; at most {MAX_REQUEST_BYTES} are accepted")
    text = _text(command)
    if not text.strip():
        raise RequestError("the request is empty: send SQL, a table's path, or a JSON object")
    if not text.lstrip().startswith("{"):
        return ReadRequest(sql=text, options=parse_options(defaults))
    return parse_json(_parsed(text), defaults)


def parse_json(parts: dict[str, Any], defaults: Mapping[str, Any]) -> ReadRequest:
    """Parse the JSON object of the grammar."""
    unknown = sorted(parts.keys() - KEYS)
    if unknown:
        raise RequestError(f"unknown key {unknown[0]!r} in the request; known are: {', '.join(sorted(KEYS))}")
    if ("sql" in parts) == ("table" in parts):
        raise RequestError("the request needs exactly one of 'sql' and 'table'")
    given = parts.get("options", {})
    if not isinstance(given, dict):
        raise RequestError("'options' must be an object")
    options = parse_options({**defaults, **given})
    if "sql" in parts:
        misplaced = sorted(TABLE_KEYS & parts.keys())
        if misplaced:
            raise RequestError(f"{misplaced[0]!r} goes with 'table'; with 'sql', write it in the statement")
        if not isinstance(parts["sql"], str) or not parts["sql"].strip():
            raise RequestError("'sql' must be a statement")
        return ReadRequest(sql=parts["sql"], params=_params(parts.get("params", [])), options=options)
    if "params" in parts:
        raise RequestError("'params' goes with 'sql'")
    return ReadRequest(
        table=_table(parts["table"]),
        columns=_columns(parts.get("columns")),
        where=_where(parts.get("where")),
        limit=_limit(parts.get("limit")),
        options=options,
    )


def _parsed(text: str) -> Any:
    try:
        parts = json.loads(text)
    except (ValueError, RecursionError) as failure:  # malformed, a number of thousands of digits, too deep
        raise RequestError(f"the request looks like JSON but is not: {failure}") from failure
    if "\\u" in text:  # only an escape can make half of a character
        try:
            json.dumps(parts, ensure_ascii=False).encode()
        except UnicodeEncodeError as failure:
            raise RequestError("the request holds half of a surrogate pair: it is no text") from failure
    return parts


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as failure:
        raise RequestError("the request is not UTF-8 text") from failure


def _table(value: Any) -> tuple[str, ...]:
    names = split_name(value) if isinstance(value, str) else value
    if (
        not isinstance(names, (list, tuple))
        or len(names) not in (1, 2)
        or not all(_is_name(name) for name in names)
    ):
        raise RequestError("a table is 'name' or 'schema.name', or a list of one or two names")
    return tuple(names)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != "" and "\0" not in value


def split_name(text: str) -> list[str]:
    """Split ``schema.name`` at dots outside double quotes; unquoted parts fold to lower case, as in SQL."""
    parts: list[str] = []
    rest = text
    while True:
        if rest.startswith('"'):
            end = 1
            while (end := rest.find('"', end)) != -1 and rest[end : end + 2] == '""':
                end += 2
            if end == -1:
                raise RequestError(f"unbalanced quotes in the table name {text!r}")
            parts.append(rest[1:end].replace('""', '"'))
            rest = rest[end + 1 :]
            if rest and not rest.startswith("."):
                raise RequestError(f"malformed table name {text!r}")
        else:
            name, dot, tail = rest.partition(".")
            parts.append(name.lower())
            rest = dot + tail
        if not rest:
            return parts
        rest = rest[1:]


def _columns(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not value or not all(_is_name(name) for name in value):
        raise RequestError("'columns' must be a list of column names, at least one")
    return tuple(value)


def _where(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and value.strip()):
        return value
    raise RequestError("'where' must be an SQL condition")


def _limit(value: Any) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63):
        return value
    raise RequestError(f"'limit' must be a whole number from 0, not {value!r}")


def _params(value: Any) -> tuple[str | None, ...]:
    if not isinstance(value, list) or len(value) > 65_535:
        raise RequestError("'params' must be a list of at most 65535 values")
    return tuple(_param(item) for item in value)


def _param(item: Any) -> str | None:
    """Return PostgreSQL's text form of a JSON value: it converts that to the type the statement needs."""
    if item is None or isinstance(item, str):
        if item is not None and "\0" in item:
            raise RequestError("a parameter contains a zero byte")
        return item
    return json.dumps(item)
