"""Columns -> Plan: the Arrow schema, the casts the query needs, and the flat table the kernels read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from kernels import layout
from kernels.column import Column
from kernels.policy import TypePolicy
from kernels.registry import NESTED
from kernels.resolve import Node, resolve
from kernels.typing import Int64s

__all__ = ["Plan", "TypePolicy", "plan"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is known about a result before its first byte.

    Parameters
    ----------
    schema : Schema
        The Arrow schema.
    nodes : tuple of Node
        Columns, then their parts: a row each of the descriptor table.
    casts : tuple of (str or None)
        Per column the SQL type it must be cast to in the query.
    descriptors : int64 array, nodes x DESCRIPTOR_WIDTH
        The table of kernels/layout.py, without the arena offsets.
    names : tuple of str
        Column names, for error messages.
    """

    schema: pa.Schema
    nodes: tuple[Node, ...]
    casts: tuple[str | None, ...]
    descriptors: Int64s = field(repr=False)
    names: tuple[str, ...]

    @property
    def varlen_columns(self) -> int:
        """Number of columns whose data is gathered."""
        return int(np.count_nonzero(self.descriptors[:, layout.SOURCE] >= 0))

    @property
    def varlen_nodes(self) -> int:
        """Number of columns and parts whose data is gathered."""
        return int(np.count_nonzero(self.descriptors[:, layout.SHAPE] == layout.VARLEN))

    @property
    def nested_nodes(self) -> int:
        """Number of nested columns and of their parts, at all depths."""
        return int(np.count_nonzero(self.descriptors[:, layout.PLACES] >= 0))

    def arrange(self, rows: int, counts: Int64s | None = None) -> tuple[Int64s, int]:
        """Place the buffers of `rows` rows in an arena.

        Parameters
        ----------
        rows : int
        counts : int64 array, optional
            The number of values of every node; by default that of the rows.

        Returns
        -------
        (descriptors, size)
            The descriptor table with VALIDITY_AT and VALUES_AT filled in, and the bytes they take: the data of
            VARLEN columns begins there.
        """
        table = self.descriptors.copy()
        sizes = [rows] * len(table) if counts is None else counts.tolist()
        at = 0
        for row, count in zip(table, sizes, strict=True):
            row[layout.VALIDITY_AT] = at
            at += align((count + 7) // 8)
            row[layout.VALUES_AT] = at
            at += align(values_size(row, count))
        return table, at

    def bytes_per_row(self) -> int:
        """Arrow bytes a row takes at least, in bytes, rounded up; VARLEN data and parts of lists not counted."""
        bits = 0
        listed: set[int] = set()
        for index, row in enumerate(self.descriptors.tolist()):
            if row[layout.SHAPE] in LISTS or index in listed:
                listed.update(range(row[layout.CHILD], row[layout.CHILD] + row[layout.CHILDREN]))
            if index not in listed:
                bits += 2 if row[layout.SHAPE] == layout.BOOL else 1 + 8 * values_size(row, 1)
        return bits // 8 + 1


LISTS = (layout.LIST, layout.MULTIRANGE, layout.MAP, layout.HEADS, layout.ELEMENTS)


def align(size: int) -> int:
    """Round `size` in bytes up to Arrow's buffer alignment."""
    return -(-size // layout.BUFFER_ALIGN_BYTES) * layout.BUFFER_ALIGN_BYTES


def values_size(descriptor: Int64s | list[int], rows: int) -> int:
    """Return the bytes of a column's values (of its offsets, where it is VARLEN)."""
    shape = descriptor[layout.SHAPE]
    if shape == layout.BOOL:
        return (rows + 7) // 8
    if shape == layout.VARLEN or shape in LISTS:
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
    tops = [resolve(column, policy) for column in columns]
    nodes, children = flatten(tops)
    descriptors = np.zeros((len(nodes), layout.DESCRIPTOR_WIDTH), dtype=np.int64)
    varlen_columns = places = 0
    for index, (node, child) in enumerate(zip(nodes, children, strict=True)):
        describe(descriptors[index], node, child, policy)
        if index >= len(columns) or node.row.shape in NESTED:
            descriptors[index, layout.PLACES] = places
            places += 1
        elif node.row.shape == layout.VARLEN:
            descriptors[index, layout.SOURCE] = varlen_columns
            varlen_columns += 1
    return Plan(
        schema=pa.schema([arrow_field(column, node) for column, node in zip(columns, tops, strict=True)]),
        nodes=tuple(nodes),
        casts=tuple(node.row.cast for node in tops),
        descriptors=descriptors,
        names=tuple(column.name for column in columns),
    )


def flatten(tops: Sequence[Node]) -> tuple[list[Node], list[int]]:
    """Return all nodes, columns first, parents before their parts, and where each one's first part is (or -1)."""
    nodes, children = list(tops), []
    for node in nodes:  # grows while it is read
        children.append(len(nodes) if node.parts else -1)
        nodes.extend(node.parts)
    return nodes, children


def arrow_field(column: Column, node: Node) -> pa.Field:
    """Make the field: name, type, nullability, and what PostgreSQL calls the type."""
    metadata = {"pg:type": column.display_type or column.type_name}
    if node.row.cast is not None:
        metadata["pg:cast"] = node.row.cast
    if column.typmod >= 0:
        metadata["pg:typmod"] = str(column.typmod)
    if column.collation:
        metadata["pg:collation"] = column.collation
    if column.comment:
        metadata["pg:comment"] = column.comment
    return pa.field(column.name, node.arrow, nullable=not column.not_null, metadata=metadata)


def describe(descriptor: Int64s, node: Node, child: int, policy: TypePolicy) -> None:
    """Write a type's parameters into one row of the descriptor table."""
    row = node.row
    infinity = layout.INFINITY_NONE
    if row.infinite:
        infinity = layout.INFINITY_NULL if policy.infinity == "null" else layout.INFINITY_ERROR
    descriptor[layout.SHAPE] = row.shape
    descriptor[layout.WIDTH] = node.stored.bit_width // 8 if row.shape == layout.NUMERIC else row.width
    descriptor[layout.BIAS] = row.bias
    descriptor[layout.LOW] = row.low
    descriptor[layout.HIGH] = row.high
    descriptor[layout.INFINITY] = infinity
    descriptor[layout.PREFIX] = row.prefix
    descriptor[layout.UTF8] = int(row.utf8)
    descriptor[layout.SOURCE] = -1
    descriptor[layout.PLACES] = -1
    descriptor[layout.CHILD] = child
    descriptor[layout.CHILDREN] = len(node.parts)
    descriptor[layout.OID] = node.oid
    descriptor[layout.PRECISION], descriptor[layout.SCALE] = node.precision, node.scale
