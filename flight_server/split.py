"""Can this read be cut into page ranges, each in a session of its own, with the same result?  Proof or one stream.

A part is the statement with one more condition, ``ctid`` within a range.  That is the same rows, once each, if the
statement reads one relation row by row (no aggregate, sort, limit, set operation, lock) and if every expression
gives the same value in every session: a ``now()`` or ``random()`` evaluated in several sessions is silently wrong.
What is not known to be safe is not split.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import sqlglot
from sqlglot import Token, TokenType, exp
from sqlglot.errors import SqlglotError

from flight_server import statement
from flight_server.request import ReadRequest
from kernels.column import Column
from kernels.errors import PostgresError
from transport.partition import PageRange, ranges
from transport.session import Session

DIALECT = "postgres"
SAFE_TYPES = frozenset((
    "bool", "int2", "int4", "int8", "float4", "float8", "numeric", "text", "varchar", "bpchar", "name", "uuid",
    "date", "timestamp", "timestamptz", "bytea",
))  # fmt: skip
"""Types whose comparison with themselves, and with literals, is immutable."""
FIRST_USER_OID = 16384
"""PostgreSQL's FirstNormalObjectId: a type below it is PostgreSQL's own, whatever its name."""
TIME_TYPES = frozenset(("date", "timestamp", "timestamptz"))
ISO_LITERAL = re.compile(r"\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}(:?\d{2})?)?)?")
"""A date that means the same at any moment: 'today', 'now' and 'tomorrow' do not."""
SAFE_NODES = (
    exp.And, exp.Or, exp.Not, exp.Paren, exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.Between, exp.In,
    exp.Is, exp.Null, exp.Boolean, exp.Literal, exp.Column, exp.Identifier, exp.Like, exp.Neg,
)  # fmt: skip
CONDITIONS = (exp.Connector, exp.Predicate, exp.Not, exp.Paren)
SELECT_PARTS = frozenset(("expressions", "from_", "from", "where", "kind"))
"""What a statement may consist of; anything else that is set (GROUP BY, LIMIT, WITH, …) keeps it whole."""


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
    """

    parts: tuple[Part, ...]
    streams: int
    why: str


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
        with session.savepoint():
            parts = _divide(session, request, columns, streams)
    except _KeepWhole as reason:
        return Division((), 1, str(reason))
    except PostgresError as failure:
        return Division((), 1, f"PostgreSQL refused a part: {failure}")
    return Division(parts, min(streams, len(parts)), "split by pages")


class _KeepWhole(Exception):  # noqa: N818 (an answer, not an error)
    """Why a read is not split."""


def _divide(session: Session, request: ReadRequest, columns: tuple[Column, ...], streams: int) -> tuple[Part, ...]:
    if streams < 2:
        raise _KeepWhole("one stream is enough, or all that was asked for")
    if request.params:
        raise _KeepWhole("the statement has parameters")
    if request.limit is not None:
        raise _KeepWhole("a limit counts rows of the whole")
    try:
        shape = shape_of(request, columns)
    except (SqlglotError, RecursionError) as failure:
        raise _KeepWhole("the statement was not understood") from failure
    found, problem = session.leaves(shape.relation)
    if problem:
        raise _KeepWhole(problem)
    if shape.template is None and len(found) != 1:
        raise _KeepWhole("a statement over a partitioned table: read the table itself to split it")
    if shape.where is not None:
        _require_safe(shape.where, session, shape.relation)
    cut = ranges(found, streams, ordered=request.options.ordered)
    if len(cut) < 2:
        raise _KeepWhole("the relation is small")
    parts = tuple(Part(index, shape.sql(part)) for index, part in enumerate(cut))
    _require_agreement(session, request, parts, cut, columns)
    return parts


def shape_of(request: ReadRequest, columns: tuple[Column, ...]) -> Shape:
    """Return a request's statement, ready to take one more condition; whether that is safe is not looked at."""
    if request.table is not None:
        return _table_shape(request, columns)
    return _sql_shape(statement.bare(request.sql or ""))


@dataclass(frozen=True, slots=True)
class Shape:
    """A statement over one relation, ready to take one more condition."""

    relation: str
    where: exp.Expression | None
    template: str | None = None
    """``SELECT … FROM {leaf} WHERE …`` for tables; None where `text` is spliced."""
    text: str = ""

    def sql(self, part: PageRange) -> str:
        """Return the statement of one part."""
        if self.template is None:
            return f"{self.text}{part.condition}"
        return self.template + _leaf_tail(part, self.text)


def _leaf_tail(part: PageRange, where: str) -> str:
    name = statement.relation((part.leaf.schema, part.leaf.name))
    tail = f" FROM ONLY {name} WHERE {part.condition}"
    return f"{tail} AND ({where}\n)" if where else tail


def _table_shape(request: ReadRequest, columns: tuple[Column, ...]) -> Shape:
    """A table request: its columns by name, for a leaf may hold them in another order."""
    names = ", ".join(statement.quote(column.name) for column in columns)
    where = None
    if request.where is not None:
        parsed = sqlglot.parse_one(f"SELECT 1 WHERE {request.where}", dialect=DIALECT)
        if {name for name, value in parsed.args.items() if value} - SELECT_PARTS:
            raise _KeepWhole("the condition is more than a condition")
        where = parsed.args["where"].this
    return Shape(statement.relation(request.table or ()), where, f"SELECT {names}", request.where or "")


def _sql_shape(sql: str) -> Shape:
    """A plain ``SELECT columns FROM table [WHERE …]``, with the place where a condition fits in."""
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
    for projection in select.expressions:
        inner = projection.this if isinstance(projection, exp.Alias) else projection
        if not isinstance(inner, (exp.Column, exp.Star)):
            raise _KeepWhole("the statement computes values")
    where = select.args.get("where")
    relation = ".".join(_folded(part) for part in (table.args.get("db"), table.this) if part is not None)
    return Shape(relation, where.this if where is not None else None, text=_spliced(sql))


def _folded(identifier: exp.Identifier) -> str:
    name = identifier.name if identifier.quoted else identifier.name.lower()
    return statement.quote(name)


def _spliced(sql: str) -> str:
    """Return the original text, open for one more condition: regenerated SQL may change names and types."""
    tokens = sqlglot.tokenize(sql, dialect=DIALECT)
    end = tokens[-1].end + 1
    position = _top_level_where(tokens)
    if position is None:
        return sql[:end] + "\nWHERE "
    return f"{sql[: position.end + 1]} (\n{sql[position.end + 1 : end]}\n) AND "


def _top_level_where(tokens: list[Token]) -> Token | None:
    depth = 0
    for token in tokens:
        depth += (token.token_type == TokenType.L_PAREN) - (token.token_type == TokenType.R_PAREN)
        if depth == 0 and token.token_type == TokenType.WHERE:
            return token
    return None


def _require_safe(where: exp.Expression, session: Session, relation: str) -> None:
    """Require a condition that is known to give the same value in every session."""
    types = {
        column.name: column.type_name
        for column in session.describe(f"SELECT * FROM {relation}")  # noqa: S608 (a quoted name)
        if column.type_oid < FIRST_USER_OID
    }
    for node in where.walk():
        if not isinstance(node, SAFE_NODES):
            raise _KeepWhole(f"the condition uses {type(node).__name__.lower()}")
        if isinstance(node, exp.Paren) and not isinstance(
            node.this, exp.Connector | exp.Predicate | exp.Not | exp.Paren
        ):
            raise _KeepWhole("the condition has a bracketed operand")
        if isinstance(node, exp.Column) and types.get(_name(node)) not in SAFE_TYPES:
            raise _KeepWhole(f"the condition uses {node.name}, whose type is not known to be safe")
    for node in where.walk():
        operands = [
            child for child in node.iter_expressions() if isinstance(child, (exp.Column, exp.Literal, exp.Neg))
        ]
        kinds = {types[_name(child)] for child in operands if isinstance(child, exp.Column)}
        if len(kinds) > 1:
            raise _KeepWhole("the condition compares columns of different types")
        if kinds & TIME_TYPES and not all(
            ISO_LITERAL.fullmatch(child.name) for child in operands if isinstance(child, exp.Literal)
        ):
            raise _KeepWhole("the condition has a date that may depend on the moment")


def _name(column: exp.Column) -> str:
    identifier = column.this
    return str(identifier.name if identifier.quoted else identifier.name.lower())


def _require_agreement(
    session: Session,
    request: ReadRequest,
    parts: tuple[Part, ...],
    cut: list[PageRange],
    columns: tuple[Column, ...],
) -> None:
    """Let PostgreSQL contradict: types, plan and filter of the parts must be those of the whole."""
    seen: set[int] = set()
    for part, page_range in zip(parts, cut, strict=True):
        if page_range.leaf.oid in seen:
            continue
        seen.add(page_range.leaf.oid)
        plan = session.explain(part.sql)
        if plan.get("Node Type") != "Tid Range Scan" or "Plans" in plan:
            raise _KeepWhole(
                f"PostgreSQL would not read it by page ranges but by {plan.get('Node Type', 'something else')}"
            )
        described = session.describe(part.sql)
        if [(column.name, column.type_oid, column.typmod) for column in described] != [
            (column.name, column.type_oid, column.typmod) for column in columns
        ]:
            raise _KeepWhole("the parts would have other types than the whole")
    if len(seen) == 1:
        whole_plan = session.explain(statement.bare(statement.select(request)))
        part_plan = session.explain(parts[0].sql)
        if whole_plan.get("Node Type") != "Seq Scan" or not _same_scan(whole_plan, part_plan):
            raise _KeepWhole(f"PostgreSQL reads it by {whole_plan.get('Node Type', 'something else')}")


def _same_scan(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one.get(key) == other.get(key) for key in ("Relation Name", "Schema", "Alias", "Output", "Filter"))
