"""Random schemas and rows: hypothesis draws the shape and a few values of each column, which rows then repeat."""

from __future__ import annotations

import random
import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.helpers.oracle import digits

Pair = tuple[str, Any]
"""PostgreSQL's input, and the canonical value."""

FIRST_DAY, LAST_DAY = -2_440_588, 2_145_042_905
FIRST_MICRO, LAST_MICRO = FIRST_DAY * 86_400_000_000, 2**63 - 1
LARGEST_MICROS = (2**63 - 1) // 1000


@dataclass(frozen=True)
class ColumnSpec:
    """A column of a random table.

    Parameters
    ----------
    ddl : str
    pool : list of (str, value)
        Values that occur.
    null_share : float
        0, 1, or something between.
    """

    ddl: str
    pool: list[Pair]
    null_share: float


@dataclass(frozen=True)
class TableSpec:
    """A random table.

    Parameters
    ----------
    columns : list of ColumnSpec
    rows : int
    seed : int
        For the order of values.
    """

    columns: list[ColumnSpec]
    rows: int
    seed: int

    @property
    def ddl(self) -> str:
        """The columns as CREATE TABLE wants them."""
        return ", ".join(f"c{index} {column.ddl}" for index, column in enumerate(self.columns))

    def generate(self) -> list[list[Pair]]:
        """Return the rows; a NULL is (None, None)."""
        source = random.Random(self.seed)
        return [
            [
                (None, None) if source.random() < column.null_share else source.choice(column.pool)
                for column in self.columns
            ]
            for _ in range(self.rows)
        ]


def day(days: int) -> str:
    """Write a date of any year."""
    year, rest = str(np.datetime64(days, "D")).rsplit("-", 2)[0], str(np.datetime64(days, "D"))[-6:]
    number = int(year)
    return f"{number:04d}{rest}" if number > 0 else f"{1 - number:04d}{rest} BC"


def moment(micros: int) -> str:
    """Write a timestamp of any year."""
    days, rest = divmod(micros, 86_400_000_000)
    date, _, era = day(days).partition(" ")
    return f"{date} {clock(rest)} {era}".rstrip()


def clock(micros: int) -> str:
    """Write a time of day."""
    seconds, fraction = divmod(micros, 1_000_000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{fraction:06d}"


def _float(width: int) -> st.SearchStrategy[Pair]:
    letter, nan = ("f", 0x7FC00000) if width == 32 else ("d", 0x7FF8000000000000)

    def pair(value: float) -> Pair:
        bits = int.from_bytes(struct.pack(f">{letter}", value), "big")
        return repr(value), nan if value != value else bits

    return st.floats(width=width).map(pair)


def _numeric(precision: int, scale: int) -> st.SearchStrategy[Pair]:
    top = 10**precision - 1

    def pair(unscaled: int) -> Pair:
        text = digits(Decimal(f"{unscaled}E{-scale}"))
        return text, text

    return st.integers(-top, top).map(pair)


def _interval(parts: tuple[int, int, int]) -> Pair:
    months, days, micros = parts
    return f"{months} months {days} days {micros} microseconds", (months, days, micros * 1000)


def _text(longest: int) -> st.SearchStrategy[Pair]:
    letters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
    return st.text(letters, max_size=20).flatmap(
        lambda unit: st.integers(0, max(1, longest // max(1, len(unit.encode())))).map(
            lambda n: (unit * n, unit * n)
        )
    )


def _bytes(longest: int) -> st.SearchStrategy[Pair]:
    return st.tuples(st.binary(min_size=1, max_size=20), st.integers(0, max(1, longest // 20))).map(
        lambda drawn: ("\\x" + (drawn[0] * drawn[1]).hex(), drawn[0] * drawn[1])
    )


def _integers(low: int, high: int, write: Callable[[int], str] = str) -> st.SearchStrategy[Pair]:
    return st.integers(low, high).map(lambda number: (write(number), number))


def kinds(longest: int) -> dict[str, st.SearchStrategy[Pair]]:
    """Return strategies by type; text and bytea up to about `longest` bytes."""
    signed = st.integers(-(2**31), 2**31 - 1)
    return {
        "bool": st.booleans().map(lambda value: (str(value), value)),
        "int2": _integers(-(2**15), 2**15 - 1),
        "int4": _integers(-(2**31), 2**31 - 1),
        "int8": _integers(-(2**63), 2**63 - 1),
        "oid": _integers(0, 2**32 - 1),
        "xid8": _integers(0, 2**64 - 1),
        "float4": _float(32),
        "float8": _float(64),
        "date": _integers(FIRST_DAY, LAST_DAY, day),
        "time": _integers(0, 86_399_999_999, clock),
        "timestamp": _integers(FIRST_MICRO, LAST_MICRO, moment),
        "timestamptz": _integers(FIRST_MICRO, LAST_MICRO, lambda micros: moment(micros) + " UTC"),
        "interval": st.tuples(signed, signed, st.integers(-LARGEST_MICROS, LARGEST_MICROS)).map(_interval),
        "uuid": st.binary(min_size=16, max_size=16).map(lambda value: (str(uuid.UUID(bytes=value)), value)),
        "numeric(9,2)": _numeric(9, 2),
        "numeric(38,12)": _numeric(38, 12),
        "numeric(76,30)": _numeric(76, 30),
        "numeric(5,-3)": _numeric(5, -3),
        "numeric(4,7)": _numeric(4, 7),
        "text": _text(longest),
        "varchar": _text(longest),
        "json": _text(60).map(lambda pair: (quoted(pair[0]), quoted(pair[0]))),
        "bytea": _bytes(longest),
    }


def quoted(text: str) -> str:
    """Write a JSON string."""
    return (
        '"'
        + "".join(f"\\u{ord(letter):04x}" if ord(letter) < 32 or letter in '"\\' else letter for letter in text)
        + '"'
    )


@st.composite
def tables(draw: st.DrawFn, rows: st.SearchStrategy[int], longest: int = 200, most_columns: int = 8) -> TableSpec:
    """Draw a table."""
    strategies = kinds(longest)
    columns = []
    for ddl in draw(st.lists(st.sampled_from(sorted(strategies)), min_size=1, max_size=most_columns)):
        pool = draw(st.lists(strategies[ddl], min_size=1, max_size=6))
        columns.append(ColumnSpec(ddl, pool, draw(st.sampled_from((0.0, 0.01, 0.5, 1.0)))))
    return TableSpec(columns, draw(rows), draw(st.integers(0, 2**32)))
