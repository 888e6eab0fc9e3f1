"""ReadRequest -> SQL text, with every identifier quoted."""

from __future__ import annotations

from collections.abc import Sequence

import sqlglot
from sqlglot import TokenType
from sqlglot.errors import SqlglotError

from flight_server.request import ReadRequest
from transport.messages import Request


def quote(name: str) -> str:
    """Quote an identifier; client_encoding is UTF-8 and the text travels as one statement."""
    return '"' + name.replace('"', '""') + '"'


def relation(table: Sequence[str]) -> str:
    """Return a relation's name as SQL writes it."""
    return ".".join(quote(name) for name in table)


def select(request: ReadRequest) -> str:
    """Return the statement that a request stands for."""
    if request.sql is not None:
        return request.sql
    columns = "*" if request.columns is None else ", ".join(quote(name) for name in request.columns)
    text = f"SELECT {columns} FROM {relation(request.table or ())}"  # noqa: S608 (identifiers are quoted)
    if request.where is not None:
        # The newline ends a comment that the condition may close with.
        text += f" WHERE ({request.where}\n)"
    if request.limit is not None:
        text += f" LIMIT {request.limit}"
    return text


def bare(text: str) -> str:
    """Return a statement without its closing semicolon and what follows that, so that it can be enclosed.

    PostgreSQL has accepted the whole text as one statement, so only comments and semicolons can follow.
    """
    if ";" not in text:
        return text
    try:
        tokens = sqlglot.tokenize(text, dialect="postgres")
    except SqlglotError:
        return text.rstrip().removesuffix(";")
    closing = next((token for token in tokens if token.token_type == TokenType.SEMICOLON), None)
    return text if closing is None else text[: closing.start]


def with_casts(text: str, casts: Sequence[str | None]) -> str:
    """Wrap a statement so that columns without a binary form of their own are cast by PostgreSQL.

    Columns are renamed by position, for names in a result need not be unique.
    """
    if not any(casts):
        return text
    names = [f"c{index}" for index in range(len(casts))]
    chosen = ", ".join(
        f"q.{name}::pg_catalog.{cast}" if cast else f"q.{name}" for name, cast in zip(names, casts, strict=True)
    )
    return f"SELECT {chosen} FROM (\n{bare(text)}\n) AS q({', '.join(names)})"  # noqa: S608 (parsed alone before)


def binary_request(text: str, params: Sequence[str | None], framing: str) -> Request:
    """Ask for a statement's rows in binary, as COPY or as rows of the extended protocol.

    With `framing` "auto" that is the extended protocol: the bytes of a row are the same, PostgreSQL makes them
    8-14 % faster on narrow rows, and it takes what COPY refuses (parameters, EXPLAIN, SHOW).
    """
    if framing != "copy":
        return Request(text, copy=False, parameters=params)
    # The newline keeps a trailing comment from swallowing the bracket; the text was parsed alone before.
    return Request(f"COPY (\n{bare(text)}\n) TO STDOUT (FORMAT BINARY)", copy=True)
