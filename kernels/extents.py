"""Where the buffers of a batch are, column by column and part by part: for those who do not look into them."""

from __future__ import annotations

from dataclasses import dataclass

from kernels import layout
from kernels.plan import LISTS, Plan, values_size
from kernels.typing import Int64s

Extent = tuple[int, int]
"""Offset in the region and length, in bytes."""


@dataclass(frozen=True, slots=True)
class Extents:
    """Where the buffers of a column, or of a part of one, are.

    Parameters
    ----------
    values : int
        How many there are, NULLs among them.
    null_count : int
        Exact.
    buffers : list of Extent or None
        In Arrow's order: validity (None where there is no NULL), then values, or offsets and data.
    children : list of Extents
        In Arrow's order: the values of a list or a vector, the fields of a struct, the entries of a map.
    """

    values: int
    null_count: int
    buffers: list[Extent | None]
    children: list[Extents]


def extents_of(plan: Plan, table: Int64s, results: Int64s, counts: Int64s) -> list[Extents]:
    """Return where the buffers of each column are.

    Parameters
    ----------
    plan : Plan
    table : int64 array, nodes x DESCRIPTOR_WIDTH
        The descriptor table that was decoded with.
    results : int64 array, nodes x RESULT_WIDTH
    counts : int64 array of nodes
        The number of values of each.
    """
    rows, found, sizes = table.tolist(), results.tolist(), counts.tolist()
    return [_extents(index, rows, found, sizes) for index in range(len(plan.names))]


def _extents(index: int, table: list[list[int]], results: list[list[int]], counts: list[int]) -> Extents:
    """Describe a node, and those below it, as `kernels.assemble` builds it."""
    place, result, count = table[index], results[index], counts[index]
    shape, first, nulls = place[layout.SHAPE], place[layout.CHILD], result[layout.NULLS]
    children = [_extents(part, table, results, counts) for part in range(first, first + place[layout.CHILDREN])]
    buffers: list[Extent | None] = [(place[layout.VALIDITY_AT], (count + 7) // 8) if nulls else None]
    values = (place[layout.VALUES_AT], values_size(place, count))
    if shape == layout.VECTOR:
        numbers = count * place[layout.WIDTH] // place[layout.SCALE]
        children = [Extents(numbers, 0, [None, values], [])]
    elif shape == layout.MAP:
        children = [Extents(children[0].values, 0, [None], children)]
    if shape in LISTS or not children:
        buffers.append(values)
    if shape == layout.VARLEN:
        buffers.append((result[layout.DATA_AT], result[layout.DATA_BYTES]))
    return Extents(count, nulls, buffers, children)
