"""The client's choices of types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Profile = Literal["arrow", "plain"]
NumericPolicy = Literal["decimal", "string", "float64"]
InfinityPolicy = Literal["error", "null"]
NestedPolicy = Literal["arrow", "text"]
ArraysPolicy = Literal["list", "nd", "text"]
TemporalPolicy = Literal["arrow", "text"]
BpcharPolicy = Literal["keep", "trim"]
MoneyPolicy = Literal["text", "int64"]


@dataclass(frozen=True, slots=True)
class TypePolicy:
    """What the client chose where a PostgreSQL type has more than one honest Arrow form.

    Parameters
    ----------
    profile : {"arrow", "plain"}
        Whether extension types (arrow.uuid, arrow.json, arrow.opaque) are used.
    numeric : {"decimal", "string", "float64"}
        Form of ``numeric``.  With "decimal", a numeric of unknown scale is a string.
    infinity : {"error", "null"}
        What an infinite date, timestamp or interval becomes.
    nested : {"arrow", "text"}
        Whether arrays, composites, ranges, multiranges, hstore and vectors become nested Arrow types, or
        PostgreSQL's text.
    arrays : {"list", "nd", "text"}
        What an array becomes: a list, which has one dimension; a struct of its dimensions, their lower bounds and
        all values in PostgreSQL's order, which holds every array; or PostgreSQL's text.
    temporal : {"arrow", "text"}
        Whether ``date``, ``time``, ``timestamp``, ``timestamptz`` and ``interval`` become Arrow types, which do
        not hold all of their values, or PostgreSQL's text.
    bpchar : {"keep", "trim"}
        Whether ``char(n)`` keeps the blanks at its end.
    money : {"text", "int64"}
        PostgreSQL's text, or the number of the currency's smallest units: lc_monetary says what they are.
    """

    profile: Profile = "arrow"
    numeric: NumericPolicy = "decimal"
    infinity: InfinityPolicy = "error"
    nested: NestedPolicy = "arrow"
    arrays: ArraysPolicy = "list"
    temporal: TemporalPolicy = "arrow"
    bpchar: BpcharPolicy = "keep"
    money: MoneyPolicy = "text"
