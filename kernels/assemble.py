"""Arena -> RecordBatch: the buffers stay where the kernels wrote them."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from kernels import layout
from kernels.errors import DecodeError
from kernels.plan import LISTS, Plan, values_size
from kernels.typing import Int64s, Region


@dataclass(frozen=True, slots=True)
class _Filled:
    """An arena and its tables as plain ints: indexing NumPy arrays one by one costs more than the rest."""

    plan: Plan
    arena: pa.Buffer
    table: list[list[int]]
    results: list[list[int]]
    counts: list[int]


def assemble(
    plan: Plan, table: Int64s, results: Int64s, region: Region, rows: int, counts: Int64s | None = None
) -> pa.RecordBatch:
    """Build the record batch over an arena that `decode` has filled.

    Parameters
    ----------
    plan : Plan
    table : int64 array, nodes x DESCRIPTOR_WIDTH
        The descriptor table that was decoded with: it says where the buffers are.
    results : int64 array, nodes x RESULT_WIDTH
        Null counts and the place of VARLEN data.
    region : Region
        The arena; kept alive by the batch's buffers and given back when the last of them is released.
    rows : int
    counts : int64 array, optional
        The number of values of every node; by default that of the rows.

    Raises
    ------
    DecodeError
        A column that PostgreSQL declares NOT NULL holds a NULL.
    """
    arena = pa.foreign_buffer(region.array.ctypes.data, region.array.size, base=region)
    sizes = [rows] * len(plan.nodes) if counts is None else counts.tolist()
    filled = _Filled(plan, arena, table.tolist(), results.tolist(), sizes)
    arrays = []
    for index, field in enumerate(plan.schema):
        if filled.results[index][layout.NULLS] and not field.nullable:
            raise DecodeError("NULL in a column declared NOT NULL", column=field.name)
        arrays.append(_array(filled, index))
    return pa.RecordBatch.from_arrays(arrays, schema=plan.schema)


def _array(filled: _Filled, index: int) -> pa.Array:
    """Build the array of a node over its parts'."""
    node, place, result = filled.plan.nodes[index], filled.table[index], filled.results[index]
    count, nulls, shape = filled.counts[index], result[layout.NULLS], place[layout.SHAPE]
    first = place[layout.CHILD]
    parts = [_array(filled, part) for part in range(first, first + place[layout.CHILDREN])]
    buffers = [filled.arena.slice(place[layout.VALIDITY_AT], (count + 7) // 8) if nulls else None]
    values = filled.arena.slice(place[layout.VALUES_AT], values_size(place, count))
    if shape == layout.VECTOR:
        parts = [pa.Array.from_buffers(node.arrow.value_type, count * node.arrow.list_size, [None, values])]
    elif shape == layout.MAP:
        entry = pa.struct([node.arrow.key_field, node.arrow.item_field])
        parts = [pa.Array.from_buffers(entry, len(parts[0]), [None], 0, children=parts)]
    if (not node.parts and shape != layout.VECTOR) or shape in LISTS:
        buffers.append(values)
    if shape == layout.VARLEN:
        buffers.append(filled.arena.slice(result[layout.DATA_AT], result[layout.DATA_BYTES]))
    if parts:
        return pa.Array.from_buffers(node.arrow, count, buffers, nulls, children=parts)
    array = pa.Array.from_buffers(node.stored, count, buffers, nulls)
    if node.arrow is not node.stored and isinstance(node.arrow, pa.BaseExtensionType):
        array = pa.ExtensionArray.from_storage(node.arrow, array)
    return array
