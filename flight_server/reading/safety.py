"""Do a statement's expressions give the same value in every session?  Two texts prove it, or the read stays whole.

The first is PostgreSQL's own: EXPLAIN (VERBOSE) writes every expression as it will be computed, in a form without
doubt: keywords in capitals, names in lower case or in quotes, literals with their types, functions that it inlined
as what they do.  The second is the statement as it came (`written`).  In both, only what is known is
accepted; the catalog must then know every function and operator as immutable, whichever overload is meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from flight_server.reading.written import Written, read_written
from kernels.column import Column
from transport.session import Session
from transport.volatility import ANY_ARITY, FIRST_USER_OID

VALUE_TYPES = frozenset((
    "bool", "int2", "int4", "int8", "float4", "float8", "numeric", "text", "varchar", "bpchar", "name", "uuid",
    "bytea",
))  # fmt: skip
"""Types that may be computed with: they are read and shown alike in every session."""
TIME_TYPES = frozenset(("date", "timestamp", "timestamptz"))
"""Types that may be compared, each with itself: much else that is done with them depends on the time zone."""
COLUMN_TYPES = VALUE_TYPES | TIME_TYPES | {f"_{name}" for name in VALUE_TYPES}
MOVING_COLUMNS = frozenset(("xmin", "xmax", "cmin", "cmax"))
"""System columns that change while others write; no other column can have their names.  A row's place does not."""
KEYWORDS = frozenset((
    "AND", "OR", "NOT", "IS", "NULL", "TRUE", "FALSE", "UNKNOWN", "DISTINCT", "FROM", "FOR", "IN", "CASE", "WHEN",
    "THEN", "ELSE", "END", "ANY", "ALL", "ARRAY", "VARIADIC", "COALESCE", "NULLIF", "GREATEST", "LEAST",
    "SUBSTRING", "POSITION", "OVERLAY", "PLACING", "TRIM", "BOTH", "LEADING", "TRAILING",
))  # fmt: skip
CALLS_BY_KEYWORD = {
    "SUBSTRING": ("substring",),
    "POSITION": ("position",),
    "OVERLAY": ("overlay",),
    "TRIM": ("btrim", "ltrim", "rtrim"),
}
IMPLY_EQUALITY = frozenset(("DISTINCT", "NULLIF", "CASE"))
COMPARISONS = frozenset(("=", "<>", "<", "<=", ">", ">="))

_NAME = r'(?>"(?:[^"]|"")+"|[a-z_][a-z0-9_]*+)'
_TYPE = (
    r"(?>(?:boolean|smallint|integer|bigint|real|double\sprecision|numeric|text|character\svarying|character|bpchar"
    r"|name|uuid|bytea|date|timestamp)(?:\(\d+(?:,-?\d+)?\))?(?:\swith(?:out)?\stime\szone)?(?:\[\])?)"
    r'(?![\w.("\[])'
)
# One group a branch, the one that names the token.  Names and types are matched whole or not at all.
TOKEN = re.compile(
    rf"""
      (?:'(?:[^']|'')*+'|NULL)::(?P<constant>{_TYPE})
    | ::(?P<cast>{_TYPE})
    | (?P<boolean>true|false)(?![\w.("])
    | (?:{_NAME}\.)?(?P<call>{_NAME})\(
    | (?:{_NAME}\.)?(?P<column>{_NAME})(?![\w.("])
    | (?P<keyword>[A-Z][A-Z_]*+)(?![\w"'])
    | (?P<number>\d++(?:\.\d*+)?(?:[eE][+-]?\d++)?)(?![\w.])
    | (?P<operator>[-+*/<>=~!@\#%^&|`?]++)
    | (?P<mark>[][(),]|(?<!:):(?!:))
    | (?P<other>::[^\s(),]+|[\w$".*]+|\S)
    """,
    re.VERBOSE,
)
_COMPARED = re.compile(r"\((?:([dsz])=\1|[dsz]in?u|d=a\(D\)|s=a\(S\)|z=a\(Z\))\)")
"""Times as they may be used, in the alphabet of `_symbol`: (a < b), (a IS NOT NULL), (a = ANY (array))."""


class Token(NamedTuple):
    """A piece of an expression as EXPLAIN writes it.

    Parameters
    ----------
    kind : str
    name : str
        Of a column or a function, without quotes and what it belongs to; of a literal or cast, its type.
    text : str
        All of it; of a column, its name: a relation's alias may differ between plans.
    """

    kind: str
    name: str
    text: str


Expression = tuple[Token, ...]


@dataclass(frozen=True, slots=True)
class Scan:
    """What a scan computes; equal if the same is computed from another relation.

    Parameters
    ----------
    output : tuple of Expression
    condition : Expression
        Empty where there is none.
    """

    output: tuple[Expression, ...]
    condition: Expression

    @classmethod
    def of(cls, node: Mapping[str, Any]) -> Scan:
        """Read a node of a plan."""
        return cls(tuple(_tokens(text) for text in node.get("Output", ())), _tokens(node.get("Filter", "")))

    def expressions(self) -> Iterator[tuple[str, Expression]]:
        """Yield what is computed, and where."""
        yield from (("the select list", one) for one in self.output)
        if self.condition:
            yield "the condition", self.condition


def find_doubt(session: Session, sql: str, scans: Sequence[Scan], columns: Sequence[Column]) -> str | None:
    """Return why a statement's values may differ between sessions; None if it is proven that they do not.

    Parameters
    ----------
    session : Session
    sql : str
        The statement as it came.
    scans : sequence of Scan
        All that its plan consists of.
    columns : sequence of Column
        All columns of the relation.
    """
    written = read_written(sql)
    computed = list(dict.fromkeys(pair for scan in scans for pair in scan.expressions()))
    if written.computes or not all(_is_column(expression) for _, expression in computed):
        doubt = _mutable(session, written, computed)
        if doubt is not None:
            return doubt
    if written.problem is not None:
        return f"the statement {written.problem}"
    types = {column.name: column.type_name for column in columns if column.type_oid < FIRST_USER_OID}
    problems = ((place, _problem(expression, types)) for place, expression in computed)
    return next((f"{place} {problem}" for place, problem in problems if problem), None)


def _mutable(session: Session, written: Written, computed: Sequence[tuple[str, Expression]]) -> str | None:
    """Ask the catalog for anything that is not immutable, in the plan or in the text."""
    calls: dict[tuple[str, int], str] = {}
    operators: dict[str, str] = {}
    for place, expression in computed:
        for call in _calls(expression):
            calls.setdefault(call, place)
        for operator in _operators(expression):
            operators.setdefault(operator, place)
    for call in written.calls:
        calls.setdefault(call, "the statement")
    found = session.first_mutable(list(calls), list(operators), sorted(VALUE_TYPES | TIME_TYPES))
    if found is None:
        return None
    places = {f"{name}()": place for (name, _), place in reversed(calls.items())} | operators
    return f"{places.get(found.name, 'the statement')} uses {found.name}, {found.reason}"


def _tokens(text: str) -> Expression:
    tokens = []
    for match in TOKEN.finditer(text):
        kind = match.lastgroup or "other"
        name = match[kind]
        if name.startswith('"'):
            name = name[1:-1].replace('""', '"')
        tokens.append(Token(kind, name, name if kind == "column" else match[0]))
    return tuple(tokens)


def _calls(expression: Expression) -> Iterator[tuple[str, int]]:
    for at, token in enumerate(expression):
        if token.kind == "call":
            yield token.name, _arity(expression, at)
        elif token.kind == "keyword":
            yield from ((name, ANY_ARITY) for name in CALLS_BY_KEYWORD.get(token.text, ()))


def _arity(expression: Expression, call: int) -> int:
    depth, commas = 1, 0
    for at in range(call + 1, len(expression)):
        kind, _, text = expression[at]
        mark = text if kind == "mark" else ""  # a column may be called "("
        depth += (kind == "call" or mark in ("(", "[")) - (mark in (")", "]"))
        if depth == 0:
            return 0 if at == call + 1 else commas + 1
        commas += depth == 1 and mark == ","
    return ANY_ARITY


def _operators(expression: Expression) -> Iterator[str]:
    for token in expression:
        if token.kind == "operator":
            yield token.text
        elif token.kind == "keyword" and token.text in IMPLY_EQUALITY:
            yield "="


def _is_column(expression: Expression) -> bool:
    return len(expression) == 1 and expression[0].kind == "column"


def _problem(expression: Expression, types: Mapping[str, str]) -> str | None:
    """Return what in an expression is not known to be safe."""
    if _is_column(expression):
        moving = expression[0].name in MOVING_COLUMNS
        return f"has {expression[0].name}, which changes while others write" if moving else None
    for kind, name, text in expression:
        if kind == "other" or (kind == "keyword" and text not in KEYWORDS):
            return f"uses {text}, which is not known to be immutable"
        if kind == "column" and types.get(name) not in COLUMN_TYPES:
            return f"uses {name}, whose type is not known to be safe"
    symbols = "".join(_symbol(token, types) for token in expression)
    if re.search("[dszDSZ]", _COMPARED.sub("", symbols)):
        return "does more with a date or time than compare it with one of its own type"
    return None


def _symbol(token: Token, types: Mapping[str, str]) -> str:
    """Return a letter for a token; a date, a timestamp, one with a time zone is d, s, z; an array D, S, Z."""
    kind, name, text = token
    if kind in ("column", "constant", "cast"):
        type_name = types[name] if kind == "column" else name
        letter = _time_letter(type_name)
        return letter.upper() if type_name.endswith("[]") else letter
    if kind == "mark":
        return text
    if kind == "operator":
        return "=" if text in COMPARISONS else "."
    return {"IS": "i", "NOT": "n", "NULL": "u", "ANY": "a", "ALL": "a"}.get(text, ".")


def _time_letter(type_name: str) -> str:
    if type_name.startswith("date"):
        return "d"
    if type_name.startswith("timestamp"):
        return "z" if type_name.startswith("timestamptz") or "with time" in type_name else "s"
    return "."
