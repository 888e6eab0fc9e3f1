"""The table of types for people: ``python -m kernels.type_table`` writes docs/types.md from the registry."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from kernels import layout
from kernels.column import Column
from kernels.plan import TypePolicy, plan
from kernels.policy import ArraysPolicy
from kernels.registry import AS_TEXT, ENUM, ROWS, UNKNOWN, VECTORS, PgType

PAGE = Path(__file__).parents[1] / "docs" / "types.md"
SHAPES = {
    layout.BOOL: "bool", layout.FIXED: "fixed", layout.BYTES: "bytes", layout.VARLEN: "varlen",
    layout.NUMERIC: "numeric", layout.INTERVAL: "interval", layout.LIST: "list", layout.STRUCT: "struct",
    layout.RANGE: "range", layout.MULTIRANGE: "multirange", layout.MAP: "map", layout.VECTOR: "vector",
    layout.ARRAY: "array",
}  # fmt: skip
NUMERIC_12_2 = (12 << 16) + 2 + 4
INTRODUCTION = """<!-- Written by `python -m kernels.type_table`; change kernels/registry.py instead. -->
# Types

How each PostgreSQL type arrives, by `profile`. "In the query" means that PostgreSQL itself converts the value: it
is what `::text` (or the type named) gives, and field metadata says so as `pg:cast`. A GPU decodes all of
both tables as the CPU does.

Field metadata: `pg:type` is the type as SQL writes it, `pg:typmod` its modifier where it has one, `pg:cast` the
type that the query casts it to, `pg:comment` the column's comment, `pg:collation` its collation where that
is not its type's own.

A value that the Arrow type cannot hold is an error that names row and column; nothing is changed silently.

## Plain types

"""
NESTED_HEAD = """
## Nested types

Parts are decoded as their own types are, at all depths down to 16; what lies deeper is text as a whole. Where a
part must be cast in the query, so must what holds it: an array then is an array of text, anything else is text.
With `nested=text` all of these are text.

"""
NESTED_TAIL = """
A range's `flags` are PostgreSQL's: 1 empty, 2 lower bound inclusive, 4 upper bound inclusive, 8 no lower bound, 16
no upper bound. A list holds arrays of one dimension whose lower bound is 1 (0 for int2vector and oidvector); any
other array is an error that names row and column. `arrays=nd` holds every array: its `dims`, their `lower_bounds`
(both empty for an empty array) and its `values`, the last dimension varying fastest; `arrays=text` is PostgreSQL's
text. Anonymous records are text.

## What an option changes

| Option | Default | Instead |
| --- | --- | --- |
| `numeric` | `decimal`: text where it has no precision; NaN in a decimal is an error | `string`, `float64` |
| `infinity` | `error`: infinite dates, timestamps and intervals | `null` |
| `temporal` | `arrow`: what Arrow cannot hold is an error | `text` for dates, times and intervals |
| `arrays` | `list`: other dimensions or bounds are errors | `nd`, `text` |
| `bpchar` | `keep`: the blanks at the end of `char(n)` | `trim` |
| `money` | `text`, as lc_monetary writes it | `int64`: the number of the currency's smallest units |
| `nested` | `arrow` | `text` |

## What is not read natively

`inet`, `cidr`, `macaddr`, `macaddr8`, `timetz`, `bit`, `varbit`, `tid`, geometric types and text search have no
Arrow type that says the same, so they are text as PostgreSQL writes it: exact, and its input again. The cast costs
PostgreSQL about as much as sending the value does. Who wants numbers asks for them: `p[0], p[1]` of a point,
`b::int8` of a `bit(64)`, `extract(epoch from t)`.
`uuid` and `money` (with `money=int64`) are read natively.

## What is not compared

`python -m tests.kernels.coverage` reads values of every type that has a send function and compares them with
PostgreSQL's. There is nothing to compare of these:

"""
UNPROVEN = {
    "pg_brin_bloom_summary": "exists only inside BRIN indexes: no statement returns a value",
    "pg_brin_minmax_multi_summary": "exists only inside BRIN indexes: no statement returns a value",
    "xml": "where PostgreSQL is built without libxml, as the embedded one is",
}
"""Types whose values cannot be had, and why."""


def part(oid: int, name: str = "") -> Column:
    """Describe a part of a nested example."""
    return Column(name, oid)


INT4S = Column("", 1, category="A", send="array_send", parts=(part(23),))
EXAMPLES: tuple[tuple[str, Column, str], ...] = (
    ("int4[]", INT4S, "any element"),
    ("inet[]", Column("", 1, category="A", send="array_send", parts=(part(869),)), "elements that are text"),
    ("(a int4, b text)", Column("", 1, kind="c", parts=(part(23, "a"), part(25, "b"))), "composites"),
    ("int4range", Column("", 1, kind="r", parts=(part(23),)), "any range whose bound is not cast"),
    ("numrange", Column("", 1, kind="r", parts=(part(1700),)), "the bound has no precision"),
    ("int4multirange", Column("", 1, kind="m", parts=(Column("", 1, kind="r", parts=(part(23),)),)), ""),
    ("hstore", Column("", 1, send="hstore_send"), ""),
    *(
        (send.removesuffix("_send") + suffix, Column("", 1, typmod, send=send), note)
        for send in VECTORS
        for suffix, typmod, note in (("(3)", 3, "one contiguous matrix"), ("", -1, "no dimension declared"))
    ),
    ("sparsevec", Column("", 1, send="sparsevec_send"), ""),
    ("domains", part(23), "as the type they are based on"),
)


def markdown() -> str:
    """Return the page."""
    rows = [line(row.name, column_of(row), row.note) for row in (*ROWS, ENUM, AS_TEXT, UNKNOWN)]
    nested = [line(name, column, note) for name, column, note in EXAMPLES]
    nested.insert(1, line("int4[]", INT4S, "with `arrays=nd`: every array", arrays="nd"))
    reasons = "".join(f"* `{name}`: {why}\n" for name, why in UNPROVEN.items())
    return INTRODUCTION + table(rows) + NESTED_HEAD + table(nested) + NESTED_TAIL + reasons


def column_of(row: PgType) -> Column:
    """Return a column of a row's type."""
    if row is ENUM:
        return Column("", 1, kind="e")
    if row is AS_TEXT:
        return Column("", 1, send=None)
    return Column("", row.oid or 1, NUMERIC_12_2 if row.shape == layout.NUMERIC else -1, "…", send=row.send or "?")


def line(name: str, column: Column, note: str, arrays: ArraysPolicy = "list") -> tuple[str, ...]:
    """Return a row of the table."""
    arrow, plain = plan([column], TypePolicy(arrays=arrays)), plan([column], TypePolicy("plain", arrays=arrays))
    types = [arrow_name(planned.schema.field(0).type) for planned in (arrow, plain)]
    (cast,) = arrow.casts
    way = f"{cast}, in the query" if cast else SHAPES[int(arrow.descriptors[0, layout.SHAPE])]
    return (f"`{name}`", f"`{types[0]}`", "the same" if types[0] == types[1] else f"`{types[1]}`", way, note)


def arrow_name(kind: pa.DataType) -> str:
    """Write an Arrow type; extensions by their name."""
    return kind.extension_name if isinstance(kind, pa.BaseExtensionType) else str(kind)


def table(rows: list[tuple[str, ...]]) -> str:
    """Write a table."""
    head = (("PostgreSQL", "Arrow (`arrow`)", "`plain`", "Shape", "Note"), ("---",) * 5)
    return "".join(f"| {' | '.join(row)} |\n" for row in (*head, *rows))


if __name__ == "__main__":
    PAGE.write_text(markdown())
