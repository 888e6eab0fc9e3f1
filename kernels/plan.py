"""Columns -> Plan: the Arrow schema, the casts the query needs, and the flat table the kernels read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa

from kernels import layout
from kernels.column import Column
from kernels.registry import AS_TEXT, BY_OID, BY_SEND, ENUM, UNKNOWN, PgType
from kernels.typing import Int64s

Profile = Literal["arrow", "plain"]
NumericPolicy = Literal["decimal", "string", "float64"]
InfinityPolicy = Literal["error", "null"]

NUMERIC_OID = 1700
MAX_DECIMAL128_DIGITS = 38
MAX_DECIMAL256_DIGITS = 76


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
    """

    profile: Profile = "arrow"
    numeric: NumericPolicy = "decimal"
    infinity: InfinityPolicy = "error"


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is known about a result before its first byte.

    Parameters
    ----------
    schema : Schema
        The Arrow schema.
    storage : tuple of DataType
        Per column the type of its buffers (an extension type's storage).
    casts : tuple of (str or None)
        Per column the SQL type it must be cast to in the query.
    descriptors : int64 array, columns x DESCRIPTOR_WIDTH
        The table of kernels/layout.py, without the arena offsets.
    names : tuple of str
        Column names, for error messages.
    """

    schema: pa.Schema
    storage: tuple[pa.DataType, ...]
    casts: tuple[str | None, ...]
    descriptors: Int64s = field(repr=False)
    names: tuple[str, ...]

    @property
    def varlen_columns(self) -> int:
        """Number of columns whose data is gathered."""
        return int(np.count_nonzero(self.descriptors[:, layout.SOURCE] >= 0))

    def arrange(self, rows: int) -> tuple[Int64s, int]:
        """Place the buffers of `rows` rows in an arena.

        Returns
        -------
        (descriptors, size)
            The descriptor table with VALIDITY_AT and VALUES_AT filled in, and the bytes they take: the data of
            VARLEN columns begins there.
        """
        table = self.descriptors.copy()
        at = 0
        for row in table:
            row[layout.VALIDITY_AT] = at
            at += align((rows + 7) // 8)
            row[layout.VALUES_AT] = at
            at += align(values_size(row, rows))
        return table, at

    def bytes_per_row(self) -> int:
        """Arrow bytes a row takes at least, in bytes, rounded up; VARLEN data not counted."""
        bits = len(self.names)
        for row in self.descriptors:
            bits += 1 if row[layout.SHAPE] == layout.BOOL else 8 * values_size(row, 1)
        return bits // 8 + 1


def align(size: int) -> int:
    """Round `size` in bytes up to Arrow's buffer alignment."""
    return -(-size // layout.BUFFER_ALIGN_BYTES) * layout.BUFFER_ALIGN_BYTES


def values_size(descriptor: Int64s, rows: int) -> int:
    """Return the bytes of a column's values (of its offsets, where it is VARLEN)."""
    shape = descriptor[layout.SHAPE]
    if shape == layout.BOOL:
        return (rows + 7) // 8
    if shape == layout.VARLEN:
        return 4 * (rows + 1)
    return int(descriptor[layout.WIDTH]) * rows


def plan(columns: Sequence[Column], policy: TypePolicy | None = None) -> Plan:
    """Decide how a result is decoded.

    Parameters
    ----------
    columns : sequence of Column
        As PostgreSQL describes them; no type is refused.
    policy : TypePolicy, optional
        The client's choices.
    """
    policy = policy or TypePolicy()
    fields: list[pa.Field] = []
    storage: list[pa.DataType] = []
    casts: list[str | None] = []
    descriptors = np.zeros((len(columns), layout.DESCRIPTOR_WIDTH), dtype=np.int64)
    varlen_columns = 0
    for index, column in enumerate(columns):
        row = resolve(column, policy)
        precision_scale = decimal_digits(column.typmod) if row.shape == layout.NUMERIC else None
        stored = decimal_type(*precision_scale) if precision_scale else row.arrow
        storage.append(stored)
        casts.append(row.cast)
        fields.append(arrow_field(column, row, stored, policy))
        describe(descriptors[index], row, stored, policy)
        if precision_scale:
            descriptors[index, layout.PRECISION], descriptors[index, layout.SCALE] = precision_scale
        if row.shape == layout.VARLEN:
            descriptors[index, layout.SOURCE] = varlen_columns
            varlen_columns += 1
    return Plan(
        schema=pa.schema(fields),
        storage=tuple(storage),
        casts=tuple(casts),
        descriptors=descriptors,
        names=tuple(column.name for column in columns),
    )


def resolve(column: Column, policy: TypePolicy) -> PgType:
    """Find the row of the table for a column."""
    if column.type_oid == NUMERIC_OID:
        return resolve_numeric(column, policy)
    known = BY_OID.get(column.type_oid) or BY_SEND.get(column.send or "")
    if known is not None:
        return known
    if column.kind == "e":
        return ENUM
    if column.send is None or column.kind in "cmpr" or column.category == "A":
        return AS_TEXT
    return UNKNOWN


def resolve_numeric(column: Column, policy: TypePolicy) -> PgType:
    """Choose between decimal and PostgreSQL's own conversion to text or float8."""
    digits = decimal_digits(column.typmod)
    if policy.numeric == "float64":
        return PgType(
            name="numeric", oid=NUMERIC_OID, arrow=pa.float64(), shape=layout.FIXED, width=8, cast="float8"
        )
    if policy.numeric == "string" or digits is None or max(digits[0], abs(digits[1])) > MAX_DECIMAL256_DIGITS:
        return AS_TEXT
    return BY_OID[NUMERIC_OID]


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


def arrow_field(column: Column, row: PgType, stored: pa.DataType, policy: TypePolicy) -> pa.Field:
    """Make the field: name, type, nullability, and what PostgreSQL calls the type."""
    arrow_type = stored
    if policy.profile == "arrow":
        if row is UNKNOWN:
            arrow_type = pa.opaque(pa.binary(), column.type_name or str(column.type_oid), "PostgreSQL")
        elif row.extension is not None:
            arrow_type = row.extension
    metadata = {"pg:type": column.display_type or column.type_name}
    if row.cast is not None:
        metadata["pg:cast"] = row.cast
    if column.comment:
        metadata["pg:comment"] = column.comment
    return pa.field(column.name, arrow_type, nullable=not column.not_null, metadata=metadata)


def describe(descriptor: Int64s, row: PgType, stored: pa.DataType, policy: TypePolicy) -> None:
    """Write a type's parameters into one row of the descriptor table."""
    infinity = layout.INFINITY_NONE
    if row.infinite:
        infinity = layout.INFINITY_NULL if policy.infinity == "null" else layout.INFINITY_ERROR
    descriptor[layout.SHAPE] = row.shape
    descriptor[layout.WIDTH] = stored.bit_width // 8 if row.shape == layout.NUMERIC else row.width
    descriptor[layout.BIAS] = row.bias
    descriptor[layout.LOW] = row.low
    descriptor[layout.HIGH] = row.high
    descriptor[layout.INFINITY] = infinity
    descriptor[layout.PREFIX] = row.prefix
    descriptor[layout.UTF8] = int(row.utf8)
    descriptor[layout.SOURCE] = -1
