"""Which Arrow type a column has, and those of its parts: a tree of nodes, one row of the registry each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pyarrow as pa

from kernels import layout
from kernels.column import Column
from kernels.policy import TypePolicy
from kernels.registry import AS_TEXT, BY_OID, BY_SEND, ENUM, NESTED, TEXT_SENDS, UNKNOWN, VECTORS, PgType

NUMERIC_OID = 1700
TEXT_OID = 25
MAX_DECIMAL128_DIGITS = 38
MAX_DECIMAL256_DIGITS = 76
MAX_DEPTH = 16
"""Deeper types are text: Arrow's own readers have limits, and Python's recursion has."""
TEMPORAL = frozenset({"date", "time", "timestamp", "timestamptz", "interval"})
"""Types of which Arrow holds less than PostgreSQL does."""
ZERO_BASED = frozenset({"int2vectorsend", "oidvectorsend"})
ARRAYS = ZERO_BASED | {"array_send"}


@dataclass(frozen=True, slots=True)
class Node:
    """How a column, or a part of one, is decoded.

    Parameters
    ----------
    row : PgType
    stored : DataType
        Of its buffers (an extension type's storage).
    arrow : DataType
        As the schema has it.
    parts : tuple of Node
    oid : int
        What an array or a composite must call this part.
    precision, scale : int
        Of a decimal; the scale of a VECTOR is the bytes of its numbers.
    """

    row: PgType
    stored: pa.DataType
    arrow: pa.DataType
    parts: tuple[Node, ...] = ()
    oid: int = 0
    precision: int = 0
    scale: int = 0


def resolve(column: Column, policy: TypePolicy, depth: int = 0) -> Node:
    """Find the node of a column; its row has a cast where PostgreSQL must convert the value.

    A nested type with a part that must be cast is cast as a whole: an array to an array, all others to text.
    """
    node = _resolve(column, policy, depth)
    return replace(node, oid=column.wire_oid or column.type_oid)


def _resolve(column: Column, policy: TypePolicy, depth: int) -> Node:  # noqa: PLR0911 - a way out per kind
    if column.type_oid == NUMERIC_OID:
        return numeric(column, policy)
    known = BY_OID.get(column.type_oid) or BY_SEND.get(column.send or "")
    if known is not None:
        return leaf(chosen(known, policy), policy)
    if column.kind == "e":
        return leaf(ENUM, policy)
    made = column.send in VECTORS or column.send == "hstore_send"
    if column.send in TEXT_SENDS or depth == MAX_DEPTH or (made and policy.nested == "text"):
        return leaf(AS_TEXT, policy)
    if made:
        return hstore(policy) if column.send == "hstore_send" else vector(column, policy)
    if column.kind in "cmpr" or column.send in ARRAYS or column.category == "A":
        parts = tuple(resolve(part, policy, depth + 1) for part in column.parts)
        return nested(column, parts, policy)
    return unknown(column, policy)


def chosen(row: PgType, policy: TypePolicy) -> PgType:
    """Return the row that the client's options put in place of a type's own."""
    if row.name == "bpchar" and policy.bpchar == "trim":
        return replace(row, prefix=layout.BLANKS)
    if row.name == "money" and policy.money == "int64":
        return replace(BY_NAME_ROW["int8"], name="money")
    return AS_TEXT if row.name in TEMPORAL and policy.temporal == "text" else row


def nested(  # noqa: PLR0911 - a way out per kind of type
    column: Column, parts: tuple[Node, ...], policy: TypePolicy
) -> Node:
    """Resolve an array, composite, range or multirange whose parts are resolved."""
    as_text = policy.nested == "text" or (policy.arrays == "text" and column.send in ARRAYS)
    if not parts or as_text:
        return leaf(AS_TEXT, policy)
    cast = next((part.row.cast for part in parts if part.row.cast), None)
    if column.send in ARRAYS:
        element = parts[0]
        if cast is not None and cast not in BY_NAME:
            return leaf(AS_TEXT, policy)
        if cast is not None:
            element = replace(element, oid=BY_NAME[cast])
            cast = f"{cast}[]"
        if policy.arrays == "nd" and column.send not in ZERO_BASED:
            return every_array(element, cast)
        bias = 0 if column.send in ZERO_BASED and cast is None else 1
        return parent(layout.LIST, pa.list_(element.arrow), pa.list_(element.stored), (element,), cast, bias)
    if cast is not None:
        return leaf(AS_TEXT, policy)
    if column.kind == "c":
        names = [part.name for part in column.parts]
        arrow, stored = (
            pa.struct([pa.field(name, kind) for name, kind in zip(names, kinds, strict=True)])
            for kinds in ([part.arrow for part in parts], [part.stored for part in parts])
        )
        return parent(layout.STRUCT, arrow, stored, parts)
    if column.kind == "r":
        bound = parts[0]
        arrow, stored = (
            pa.struct([("lower", kind), ("upper", kind), ("flags", pa.uint8())])
            for kind in (bound.arrow, bound.stored)
        )
        return parent(layout.RANGE, arrow, stored, (bound, bound, FLAGS))
    if column.kind == "m":
        return parent(layout.MULTIRANGE, pa.list_(parts[0].arrow), pa.list_(parts[0].stored), parts)
    return leaf(AS_TEXT, policy)


def parent(
    shape: int,
    arrow: pa.DataType,
    stored: pa.DataType,
    parts: tuple[Node, ...],
    cast: str | None = None,
    bias: int = 0,
) -> Node:
    """Make a node that has parts."""
    row = PgType(name=NESTED[shape], oid=None, shape=shape, arrow=arrow, cast=cast, bias=bias)
    return Node(row, stored, arrow, parts)


def every_array(element: Node, cast: str | None) -> Node:
    """Make a node of arrays of any dimensions, each of which has a size and a lower bound."""
    number = PgType(name="int4", oid=None, shape=layout.BARE, arrow=pa.int32(), width=4)
    integers = pa.list_(pa.int32())
    word = Node(number, pa.int32(), pa.int32())
    values = parent(layout.ELEMENTS, pa.list_(element.arrow), pa.list_(element.stored), (element,))
    heads = (parent(layout.HEADS, integers, integers, (word,), bias=at) for at in (0, 4))
    parts = (*heads, values)
    arrow, stored = (
        pa.struct([("dims", integers), ("lower_bounds", integers), ("values", kind)])
        for kind in (values.arrow, values.stored)
    )
    return parent(layout.ARRAY, arrow, stored, parts, cast)


def leaf(row: PgType, policy: TypePolicy) -> Node:
    """Make a node of a row of the registry."""
    extended = policy.profile == "arrow" and row.extension is not None
    return Node(row, row.arrow, row.extension if extended else row.arrow)


def unknown(column: Column, policy: TypePolicy) -> Node:
    """Pass on the bytes of a type nobody knows."""
    name = column.type_name or str(column.type_oid)
    arrow = pa.opaque(pa.binary(), name, "PostgreSQL") if policy.profile == "arrow" else pa.binary()
    return Node(UNKNOWN, UNKNOWN.arrow, arrow)


def hstore(policy: TypePolicy) -> Node:
    """Map text to text."""
    text = leaf(BY_OID[TEXT_OID], policy)
    arrow = pa.map_(pa.string(), pa.string())
    return parent(layout.MAP, arrow, arrow, (text, text))


def vector(column: Column, policy: TypePolicy) -> Node:
    """Make a matrix of vectors of a declared dimension, a list of numbers of others."""
    number, size = VECTORS[column.send or ""]
    if column.typmod < 1:
        element = replace(leaf(BY_NAME_ROW["float4"], policy), oid=BY_NAME["float4"])
        kind = pa.list_(pa.float32())
        return parent(layout.LIST, kind, kind, (element,), "float4[]", 1)
    kind = pa.list_(number, column.typmod)
    row = PgType(name=column.type_name, oid=None, shape=layout.VECTOR, arrow=kind, width=size * column.typmod)
    return Node(row, kind, kind, scale=size)


def numeric(column: Column, policy: TypePolicy) -> Node:
    """Choose between decimal and PostgreSQL's own conversion to text or float8."""
    digits = decimal_digits(column.typmod)
    if policy.numeric == "float64":
        return leaf(replace(BY_NAME_ROW["float8"], name="numeric", oid=NUMERIC_OID, cast="float8"), policy)
    if policy.numeric == "string" or digits is None or max(digits[0], abs(digits[1])) > MAX_DECIMAL256_DIGITS:
        return leaf(AS_TEXT, policy)
    kind = decimal_type(*digits)
    return Node(BY_OID[NUMERIC_OID], kind, kind, precision=digits[0], scale=digits[1])


def decimal_digits(typmod: int) -> tuple[int, int] | None:
    """Split numeric's type modifier into (precision, scale); None if it has none.

    The scale is an 11-bit two's complement number since PostgreSQL 15 (numeric.c: numeric_typmod_scale).
    """
    if typmod < 4:
        return None
    bits = typmod - 4
    return (bits >> 16) & 0xFFFF, ((bits & 0x7FF) ^ 1024) - 1024


def decimal_type(precision: int, scale: int) -> pa.DataType:
    """Return the narrowest Arrow decimal of that precision, from 128 bits.

    Arrow can print a decimal only if its scale is no larger than the width's digits, either way.
    """
    if max(precision, abs(scale)) <= MAX_DECIMAL128_DIGITS:
        return pa.decimal128(precision, scale)
    return pa.decimal256(precision, scale)


BY_NAME = {row.name: oid for oid, row in BY_OID.items()}
BY_NAME_ROW = {row.name: row for row in BY_OID.values()}
FLAGS = Node(PgType(name="flags", oid=None, shape=layout.BARE, arrow=pa.uint8(), width=1), pa.uint8(), pa.uint8())
