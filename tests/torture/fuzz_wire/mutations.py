"""Ways to break a payload: by bytes, by the words of its grammar, and inside its JSON."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

WORDS = (
    b"{", b"}", b"[", b"]", b'"', b"\\", b",", b":", b"\0", b"\\u0000", b"\\ud800", b"\xed\xa0\x80", b"\xff", b"$1",
    b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"null", b"true", b'"sql"', b'"table"', b'"options"', b"'", b"--", b";",
    b"/*", b"$$", b"pgf1.", b"pgq1.", b"pgl1.", b".", b"type.googleapis.com/", b"arrow.flight.protocol.sql.",
    b"\x0a", b"\x12", b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", b"\x7f", "\N{ZERO WIDTH SPACE}ü€😀".encode(),
    b"[" * 3000, b'{"a":' * 3000, b" to program 'true'", b"\n)", b"%", b"_", b"=", b"; ", b"Basic ", b"Bearer ",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**400, 0.5, 1e308, float("nan"), float("inf"), "", "\0",
    "\ud800", "a" * 5000, "9" * 500, "auto", [], {}, [[]], {"a": None}, [None], "public.fuzzed", '"', "1e5",
)  # fmt: skip
JSON_SHARE = 0.35
MOST_STEPS = 4


def mutated(source: random.Random, raw: bytes, donors: Sequence[bytes]) -> bytes:
    """Return a payload broken in one to a few places."""
    if raw.lstrip()[:1] in (b"{", b"[") and source.random() < JSON_SHARE:
        return _json(source, raw)
    for _ in range(source.randint(1, MOST_STEPS)):
        raw = source.choice(STEPS)(source, raw, donors)
    return raw


def _flip(source: random.Random, raw: bytes, _donors: Sequence[bytes]) -> bytes:
    at = source.randrange(len(raw) or 1)
    return raw[:at] + bytes([source.randrange(256)]) + raw[at + 1 :]


def _nudge(source: random.Random, raw: bytes, _donors: Sequence[bytes]) -> bytes:
    """Change a byte by a little: lengths and tags of messages are small numbers."""
    at = source.randrange(len(raw) or 1)
    return (
        raw[:at] + bytes((byte + source.choice((-8, -1, 1, 8))) % 256 for byte in raw[at : at + 1]) + raw[at + 1 :]
    )


def _insert(source: random.Random, raw: bytes, _donors: Sequence[bytes]) -> bytes:
    at = source.randint(0, len(raw))
    return raw[:at] + source.choice(WORDS) + raw[at:]


def _replace(source: random.Random, raw: bytes, _donors: Sequence[bytes]) -> bytes:
    at = source.randint(0, len(raw))
    word = source.choice(WORDS)
    return raw[:at] + word + raw[at + len(word) :]


def _cut(source: random.Random, raw: bytes, _donors: Sequence[bytes]) -> bytes:
    begin, end = sorted((source.randint(0, len(raw)), source.randint(0, len(raw))))
    return raw[:begin] + raw[end:] if source.random() < 0.7 else raw[:end]


def _repeat(source: random.Random, raw: bytes, _donors: Sequence[bytes]) -> bytes:
    begin, end = sorted((source.randint(0, len(raw)), source.randint(0, len(raw))))
    return raw[:end] + raw[begin:end] * source.choice((1, 2, 30)) + raw[end:]


def _splice(source: random.Random, raw: bytes, donors: Sequence[bytes]) -> bytes:
    other = source.choice(donors)
    return raw[: source.randint(0, len(raw))] + other[source.randint(0, len(other)) :]


def _encoded(source: random.Random, raw: bytes, donors: Sequence[bytes]) -> bytes:
    """Break what is inside base64, between dots or after an equals sign."""
    head, dot, tail = raw.partition(source.choice((b".", b"=", b" ")))
    body, point, rest = tail.partition(b".")
    try:
        inner = base64.b64decode(body, altchars=b"-_")
    except ValueError:
        return _flip(source, raw, donors)
    inner = _json(source, inner) if inner[:1] == b"{" else _flip(source, inner, donors)
    return head + dot + base64.urlsafe_b64encode(inner) + point + rest


STEPS: tuple[Callable[[random.Random, bytes, Sequence[bytes]], bytes], ...] = (
    _flip, _nudge, _nudge, _insert, _replace, _cut, _repeat, _splice, _encoded,
)  # fmt: skip


def _json(source: random.Random, raw: bytes) -> bytes:
    """Replace, add or take away something inside of JSON."""
    try:
        whole = json.loads(raw)
    except (ValueError, RecursionError):
        return _flip(source, raw, ())
    places: list[tuple[Any, Any]] = []
    _walk(whole, places)
    if not places:
        return json.dumps(source.choice(VALUES)).encode()
    holder, key = source.choice(places)
    match source.randrange(4):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[source.choice(("sql", "table", "params", "where", "limit", "options", "\0", "streams"))] = (
                holder[key]
            )
        case _:
            holder[key] = source.choice(VALUES)
    return json.dumps(whole).encode()


def _walk(node: Any, places: list[tuple[Any, Any]]) -> None:
    if isinstance(node, (dict, list)):
        for key in node if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            _walk(node[key], places)
