"""What a statement's own text says about values that are computed while it is parsed: a plan does not show them.

A literal becomes a value of the type that its place demands, in each session anew: 'now' is a moment, 'lineorder'
may be a table.  So words that stand for a moment are not accepted, nor types that read their literals differently
from one moment to the next; functions are named here because a call of literals alone is computed on the spot.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

import sqlglot
from sqlglot import TokenType

from transport.volatility import ANY_ARITY

DIALECT = "postgres"
CAST_TYPES = frozenset((
    "bool", "boolean", "int2", "smallint", "int4", "int", "integer", "int8", "bigint", "float4", "real", "float8",
    "double precision", "float", "numeric", "decimal", "dec", "text", "varchar", "character varying", "character",
    "char", "bpchar", "name", "uuid", "bytea",
))  # fmt: skip
"""Types to which anything may be cast, as SQL writes them."""
MOMENT_TYPES = frozenset(("date", "timestamp", "timestamptz"))
"""Types to which a literal may be cast."""
MOMENT = re.compile(r"(?<![a-z])(now|today|tomorrow|yesterday)(?![a-z])", re.IGNORECASE)
"""What PostgreSQL's dates and times take for a moment, wherever it stands in a literal."""
KEYWORDS = frozenset((
    "and", "or", "not", "in", "is", "like", "ilike", "similar to", "between", "symmetric", "when", "then", "else",
    "case", "select", "where", "from", "for", "any", "some", "all", "array", "coalesce", "nullif", "greatest",
    "least", "cast", "both", "leading", "trailing", "placing", "variadic",
))  # fmt: skip
"""Words before a bracket or a literal that name neither a function nor a type."""
ARGUMENT_WORDS = frozenset(("from", "for", "in", "placing", "using", "both", "leading", "trailing"))
"""Words that separate arguments where SQL has a syntax of its own for a function."""
SYNTAX_CALLS = {"trim": ("btrim", "ltrim", "rtrim")}
"""What the catalog calls a function that SQL calls otherwise."""
LITERALS = frozenset((TokenType.STRING, TokenType.HEREDOC_STRING))
ODD_LITERALS = frozenset((
    TokenType.BIT_STRING, TokenType.BYTE_STRING, TokenType.HEX_STRING, TokenType.NATIONAL_STRING,
    TokenType.RAW_STRING, TokenType.UNICODE_STRING,
))  # fmt: skip
"""Literals whose value is not what stands between the quotes."""
OPENING = frozenset((TokenType.L_PAREN, TokenType.L_BRACKET))
CLOSING = frozenset((TokenType.R_PAREN, TokenType.R_BRACKET))
_UPPER_TO_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


class Word(NamedTuple):
    """A token.

    Parameters
    ----------
    kind : TokenType
    text : str
        Of a name, what it means: unquoted and folded; of a literal, its value.
    quoted : bool
        It is a quoted name.
    """

    kind: TokenType
    text: str
    quoted: bool = False

    @property
    def is_name(self) -> bool:
        """Whether it is a name or a keyword."""
        return self.quoted or (self.kind not in LITERALS and (self.text[:1].isalpha() or self.text[:1] == "_"))

    def is_keyword(self, words: frozenset[str]) -> bool:
        """Whether it is one of these keywords."""
        return not self.quoted and self.kind not in LITERALS and self.text in words


@dataclass(frozen=True, slots=True)
class Written:
    """What a text names.

    Parameters
    ----------
    calls : tuple of (str, int)
        Functions, and how many arguments they are given.
    computes : bool
        There is anything but names.
    problem : str or None
        The first thing that is not known to mean the same in every session: ``uses …``.
    """

    calls: tuple[tuple[str, int], ...]
    computes: bool
    problem: str | None


def folded(name: str) -> str:
    """Fold an unquoted name as PostgreSQL does: ASCII alone."""
    return name.translate(_UPPER_TO_LOWER)


def read_written(sql: str) -> Written:
    """Read a statement that PostgreSQL has accepted."""
    words = _words(sql)
    casts = _casts(words)
    problems = [_literal_problem(words, at) for at in range(len(words))]
    problems += [_cast_problem(words, at, literal=literal) for at, literal in casts.items()]
    calls = tuple(
        call
        for at, word in enumerate(words[:-1])
        if words[at + 1].kind == TokenType.L_PAREN
        and word.is_name
        and not word.is_keyword(KEYWORDS)
        and at not in casts
        for call in _calls(words, at)
    )
    literals = any(word.kind in LITERALS for word in words)
    return Written(
        calls, bool(calls or casts or literals), next((problem for problem in problems if problem), None)
    )


def _words(sql: str) -> list[Word]:
    words = []
    for token in sqlglot.tokenize(sql, dialect=DIALECT):
        raw, before = sql[token.start : token.end + 1], sql[token.start - 1 : token.start]
        if token.token_type == TokenType.IDENTIFIER:
            words.append(Word(token.token_type, token.text, quoted=True))
        elif token.token_type == TokenType.HEREDOC_STRING and re.match(r"[\w$]", before):
            words.append(Word(TokenType.RAW_STRING, raw))  # a dollar inside a name opens no literal
        elif token.token_type in LITERALS:
            words.append(Word(token.token_type, token.text))
        else:
            words.append(Word(token.token_type, " ".join(folded(raw).split())))
    return words


def _literal_problem(words: list[Word], at: int) -> str | None:
    word, before = words[at], words[at - 1]
    if word.kind in ODD_LITERALS:
        return "uses a literal of an unusual form"
    if word.kind not in LITERALS:
        return None
    if MOMENT.search(word.text):
        return f"uses the literal '{word.text}', which may stand for a moment"
    if before.kind in LITERALS or before.kind in CLOSING:
        return "uses a literal in parts, or of a type with a modifier"
    in_zone = before.text == "zone" and words[at - 2].text == "time"
    if before.is_name and not in_zone and not before.is_keyword(KEYWORDS | CAST_TYPES | MOMENT_TYPES):
        return f"uses a literal of type {before.text}"
    return None


def _casts(words: list[Word]) -> dict[int, bool]:
    """Return where types stand to which is cast, and whether what is cast is a literal."""
    casts: dict[int, bool] = {}
    opened: list[Word] = []
    for at, word in enumerate(words[:-1]):
        if word.kind in OPENING:
            opened.append(words[at - 1])
        elif word.kind in CLOSING and opened:
            opened.pop()
        elif word.kind == TokenType.DCOLON:
            casts[at + 1] = words[at - 1].kind in LITERALS
        elif word.is_keyword(frozenset(("as",))) and opened and opened[-1].is_keyword(frozenset(("cast",))):
            casts[at + 1] = words[at - 1].kind in LITERALS and words[at - 2].kind == TokenType.L_PAREN
    return casts


def _cast_problem(words: list[Word], at: int, *, literal: bool) -> str | None:
    name = words[at]
    known = name.is_keyword(CAST_TYPES) or (literal and name.is_keyword(MOMENT_TYPES))
    if known and (at + 1 == len(words) or words[at + 1].kind != TokenType.DOT):
        return None
    return f"casts to {name.text}"


def _calls(words: list[Word], at: int) -> list[tuple[str, int]]:
    word = words[at]
    if word.is_keyword(frozenset(SYNTAX_CALLS)):
        return [(name, ANY_ARITY) for name in SYNTAX_CALLS[word.text]]
    return [(word.text, _arity(words, at + 1))]


def _arity(words: list[Word], opening: int) -> int:
    """Count the arguments of a call."""
    depth = commas = 0
    for at in range(opening, len(words)):
        word = words[at]
        depth += (word.kind in OPENING) - (word.kind in CLOSING)
        if depth == 0:
            return 0 if at == opening + 1 else commas + 1
        if depth == 1:
            if word.is_keyword(ARGUMENT_WORDS):
                return ANY_ARITY
            commas += word.kind == TokenType.COMMA
    return ANY_ARITY
