"""Can this read be cut into page ranges, each in a session of its own, with the same result?  Proof or one stream.

A part is the statement with one more condition, ``ctid`` within a range of one leaf.  PostgreSQL's plans prove it:
the whole reads each leaf by one sequential scan and does nothing else; a part reads the leaf by page ranges,
computes and filters the same; and what is computed gives the same value in every session.  What is not known to be
safe is not split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlglot
from sqlglot import Token, TokenType, exp
from sqlglot.errors import SqlglotError

from flight_server.reading import statement
from flight_server.reading.safety import Scan, find_doubt
from flight_server.reading.written import DIALECT, folded
from flight_server.request import ReadRequest
from kernels.column import Column
from kernels.errors import PostgresError
from transport.partition import MIN_RANGE_BYTES, Leaf, PageRange, ranges
from transport.session import Session

SELECT_PARTS = frozenset(("expressions", "from_", "from", "where", "kind"))
"""What a statement may consist of; anything else that is set (GROUP BY, LIMIT, WITH, …) keeps it whole."""
SMALL = "what it reads is small"
DEEPER = frozenset((TokenType.L_PAREN, TokenType.L_BRACKET))
HIGHER = frozenset((TokenType.R_PAREN, TokenType.R_BRACKET))


@dataclass(frozen=True, slots=True)
class Part:
    """One statement of a split read."""

    index: int
    sql: str


@dataclass(frozen=True, slots=True)
class Division:
    """How a read is cut.

    Parameters
    ----------
    parts : tuple of Part
        Empty where it stays whole.
    streams : int
    why : str
        For people.
    leaves : tuple of Leaf
        What is read: partitions whose bounds rule every row out are not.
    """

    parts: tuple[Part, ...]
    streams: int
    why: str
    leaves: tuple[Leaf, ...] = ()


@dataclass(frozen=True, slots=True)
class Shape:
    """A statement over one relation, ready to read page ranges of its leaves.

    Parameters
    ----------
    relation : str
        As SQL writes it.
    name : str
        By what the statement knows the relation; empty if it says so itself.
    head, tail : str
        The statement up to the relation's name, and after it up to where a condition can be added.
    """

    relation: str
    name: str
    head: str
    tail: str

    def sql(self, part: PageRange) -> str:
        """Return the statement that reads one page range."""
        source = f"ONLY {statement.relation((part.leaf.schema, part.leaf.name))}"
        if self.name not in ("", part.leaf.name):
            source += f" AS {statement.quote(self.name)}"
        return f"{self.head}{source}{self.tail}{part.condition}"


class _KeepWhole(Exception):  # noqa: N818 (an answer, not an error)
    """Why a read is not split."""


def divide(session: Session, request: ReadRequest, columns: tuple[Column, ...], streams: int) -> Division:
    """Cut a read into parts, or say why it stays whole.

    Parameters
    ----------
    session : Session
        Has described the statement; its snapshot is the one to be exported.
    request : ReadRequest
    columns : tuple of Column
        The statement's result.
    streams : int
        Streams wanted at most.
    """
    try:
        _require_wanted(session, request, streams)
        with session.savepoint():
            return _divide(session, request, columns, streams)
    except _KeepWhole as reason:
        return Division((), 1, str(reason))
    except (SqlglotError, RecursionError):
        return Division((), 1, "the statement was not understood")
    except PostgresError as failure:
        return Division((), 1, f"PostgreSQL refused a part: {failure}")


def doubt_about(session: Session, request: ReadRequest, columns: tuple[Column, ...]) -> str | None:
    """Say why a statement might mean something else in a session of another login; None where it cannot.

    It reads one relation by sequential scans, and what is computed gives the same value in every session.  That
    the other login sees the same plan, row security included, is for the caller to look at.
    """
    try:
        with session.savepoint():
            if request.params or request.rows is not None or request.limit is not None:
                return "it has parameters or a limit"
            shape = shape_of(request, columns)
            problem = session.leaves(shape.relation)[1]
            if problem is None:
                _proven(session, request, shape)
            return problem
    except _KeepWhole as reason:
        return str(reason)
    except (SqlglotError, RecursionError):
        return "the statement was not understood"


def shape_of(request: ReadRequest, columns: tuple[Column, ...]) -> Shape:
    """Return a request's statement, ready to read page ranges; whether that is safe is not looked at.

    Parameters
    ----------
    request : ReadRequest
        One that `divide` has cut, now or in another process.
    columns : tuple of Column
        The statement's result.
    """
    if request.table is not None:
        return _table_shape(request, columns)
    return _sql_shape(statement.bare(request.sql or ""))


def _require_wanted(session: Session, request: ReadRequest, streams: int) -> None:
    """Keep what is not worth looking at whole, before PostgreSQL is asked anything."""
    if streams < 2:
        raise _KeepWhole("one stream is enough, or all that was asked for")
    if request.params:
        raise _KeepWhole("the statement has parameters")
    if request.limit is not None:
        raise _KeepWhole("a limit counts rows of the whole")
    if session.locked_bytes is not None and session.locked_bytes <= MIN_RANGE_BYTES:
        raise _KeepWhole(SMALL)


def _divide(session: Session, request: ReadRequest, columns: tuple[Column, ...], streams: int) -> Division:
    shape = shape_of(request, columns)
    found, problem = session.leaves(shape.relation)
    if problem:
        raise _KeepWhole(problem)
    _cut(found, streams, request)
    scans = _proven(session, request, shape)
    read = tuple(leaf for leaf in found if (leaf.schema, leaf.name) in scans)
    if len(read) != len(scans):
        raise _KeepWhole("PostgreSQL reads more than one relation")
    cut = _cut(read, streams, request)
    for first in (one for one in cut if one.begin == 0):
        leaf = first.leaf
        _require_agreement(session, shape.sql(first), scans[leaf.schema, leaf.name], leaf, columns)
    parts = tuple(Part(index, shape.sql(one)) for index, one in enumerate(cut))
    return Division(parts, min(streams, len(parts)), "split by pages", read)


def _proven(session: Session, request: ReadRequest, shape: Shape) -> dict[tuple[str, str], Scan]:
    """Require that the whole scans relations and computes the same in every session; return its scans."""
    whole = statement.bare(statement.select(request))
    scans = _scans(session.explain(whole))
    doubt = find_doubt(
        session,
        whole,
        list(scans.values()),
        session.describe(f"SELECT * FROM {shape.relation}"),  # noqa: S608 (a quoted name)
    )
    if doubt:
        raise _KeepWhole(doubt)
    return scans


def _cut(leaves: Sequence[Leaf], streams: int, request: ReadRequest) -> list[PageRange]:
    cut = ranges(list(leaves), streams, ordered=request.options.ordered)
    if len(cut) < 2:
        raise _KeepWhole(SMALL)
    return cut


def _scans(plan: dict[str, Any]) -> dict[tuple[str, str], Scan]:
    """Require a plan that scans relations and does nothing else; return the scans by schema and name."""
    nodes = plan.get("Plans", []) if plan.get("Node Type") == "Append" else [plan]
    other = next((node for node in nodes if node.get("Node Type") != "Seq Scan"), None)
    if other is not None:
        raise _KeepWhole(f"PostgreSQL reads it by {other.get('Node Type', 'something else')}")
    scans = {(node["Schema"], node["Relation Name"]): Scan.of(node) for node in nodes}
    odd = any("Plans" in node or node.get("Parent Relationship", "Member") != "Member" for node in nodes)
    if odd or len(scans) != len(nodes) or plan.get("Subplans Removed"):
        raise _KeepWhole("PostgreSQL reads more than one relation")
    return scans


def _require_agreement(session: Session, sql: str, scan: Scan, leaf: Leaf, columns: tuple[Column, ...]) -> None:
    """Let PostgreSQL contradict: a part must have the result's columns and compute what the whole computes."""
    described = session.describe(sql)
    if [column.name for column in described] != [column.name for column in columns]:
        raise _KeepWhole("a partition has its columns in another order")
    if any(
        (one.type_oid, one.typmod) != (other.type_oid, other.typmod)
        for one, other in zip(described, columns, strict=True)
    ):
        raise _KeepWhole("the parts would have other types than the whole")
    plan = session.explain(sql, sequential=False)
    node_type = plan.get("Node Type", "something else")
    if node_type != "Tid Range Scan" or "Plans" in plan:
        raise _KeepWhole(f"PostgreSQL would not read it by page ranges but by {node_type}")
    if (plan.get("Schema"), plan.get("Relation Name")) != (leaf.schema, leaf.name) or Scan.of(plan) != scan:
        raise _KeepWhole("PostgreSQL computes something else for a part than for the whole")


def _table_shape(request: ReadRequest, columns: tuple[Column, ...]) -> Shape:
    """A table request: its columns by name, for a leaf may hold them in another order."""
    names = ", ".join(statement.quote(column.name) for column in columns)
    tail = " WHERE " if request.where is None else f" WHERE ({request.where}\n) AND "
    table = request.table or ()
    head = f"SELECT {names} FROM "  # noqa: S608 (identifiers are quoted)
    return Shape(statement.relation(table), table[-1], head, tail)


def _sql_shape(sql: str) -> Shape:
    """A plain ``SELECT … FROM table [WHERE …]``: original text, for regenerated SQL may change names and types."""
    table = _only_table(sql)
    names = [part for part in (table.args.get("db"), table.this) if part is not None]
    meant = [part.name if part.quoted else folded(part.name) for part in names]
    tokens = sqlglot.tokenize(sql, dialect=DIALECT)
    begin = _top_level(tokens, TokenType.FROM) + 1
    named = tokens[begin : begin + 2 * len(names) - 1]
    if [token.text for token in named[::2]] != [part.name for part in names]:
        raise _KeepWhole("the statement was not understood")
    where, end = _top_level(tokens, TokenType.WHERE), tokens[-1].end + 1
    if where:
        rest = tokens[where].end + 1
        tail = f"{sql[named[-1].end + 1 : rest]} (\n{sql[rest:end]}\n) AND "
    else:
        tail = f"{sql[named[-1].end + 1 : end]}\nWHERE "
    return Shape(
        ".".join(statement.quote(name) for name in meant),
        meant[-1] if table.args.get("alias") is None else "",
        sql[: named[0].start],
        tail,
    )


def _only_table(sql: str) -> exp.Table:
    """Return the one table that a statement reads."""
    parsed = sqlglot.parse(sql, dialect=DIALECT)
    select = parsed[0] if parsed else None
    if len([one for one in parsed if one is not None]) != 1 or not isinstance(select, exp.Select):
        raise _KeepWhole("the statement is no plain SELECT")
    extra = sorted(name for name, value in select.args.items() if value and name not in SELECT_PARTS)
    if extra:
        raise _KeepWhole(f"the statement has {extra[0].replace('_', ' ')}")
    source = select.args.get("from_") or select.args.get("from")
    table = source.this if source is not None else None
    if not isinstance(table, exp.Table) or any(
        value for name, value in table.args.items() if name not in ("this", "db", "alias")
    ):
        raise _KeepWhole("the statement does not read one table")
    if not isinstance(table.this, exp.Identifier):
        raise _KeepWhole("the statement reads a function")
    if table.args.get("alias") is not None and table.args["alias"].args.get("columns"):
        raise _KeepWhole("the table's columns are renamed")
    if len(list(select.find_all(exp.Query))) > 1:
        raise _KeepWhole("the statement has a subquery")
    return table


def _top_level(tokens: list[Token], kind: TokenType) -> int:
    """Return where a keyword stands outside of brackets; 0 if nowhere.  ``IS DISTINCT FROM`` is another FROM."""
    depth = 0
    for at, token in enumerate(tokens):
        depth += (token.token_type in DEEPER) - (token.token_type in HIGHER)
        if depth == 0 and token.token_type == kind and tokens[at - 1].token_type != TokenType.DISTINCT:
            return at
    return 0
