"""What a survey finds: the places of all nested fields of a block, node by node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kernels import layout
from kernels.plan import LISTS, Plan
from kernels.typing import Int64s, Uint32s


@dataclass(frozen=True, slots=True)
class Parts:
    """Scratch memory of one survey, and its result.

    Parameters
    ----------
    places : uint32 array, nested nodes x capacity
        Offset in the block of each value's length word, or ABSENT.
    offsets : uint32 array, of the same shape
        Where the parts of each value of a list begin.
    counts : int64 array of nodes
    """

    places: Uint32s
    offsets: Uint32s
    counts: Int64s

    @classmethod
    def of(cls, plan: Plan, values: int) -> Parts:
        """Make room for up to `values` values of each node; memory that is not needed is never touched."""
        shape = (plan.nested_nodes, values + 1)
        return cls(np.empty(shape, np.uint32), np.empty(shape, np.uint32), np.zeros(len(plan.nodes), np.int64))

    def climb(self, plan: Plan, failure: Int64s) -> None:
        """Turn a failure at a value of a node into one at a row of a column."""
        climb(plan, failure, lambda node: self.ends_of(plan, node))

    def ends_of(self, plan: Plan, node: int) -> Uint32s:
        """Return where the parts of each value of a list end."""
        return self.offsets[plan.descriptors[node, layout.PLACES], 1 : int(self.counts[node]) + 1]


def climb(plan: Plan, failure: Int64s, ends_of: Callable[[int], Uint32s]) -> None:
    """Turn a failure at a value of a node into one at a row of a column.

    Parameters
    ----------
    plan : Plan
    failure : int64 array
        The failure record.
    ends_of : callable
        Returns where the parts of each value of a list node end.
    """
    table = plan.descriptors
    parents = {
        child: index
        for index, row in enumerate(table.tolist())
        for child in range(row[layout.CHILD], row[layout.CHILD] + row[layout.CHILDREN])
    }
    node, value = int(failure[layout.COLUMN]), int(failure[layout.ROW])
    while node >= len(plan.names):
        node = parents[node]
        if table[node, layout.SHAPE] in LISTS:
            value = int(np.searchsorted(ends_of(node), value, side="right"))
    failure[layout.COLUMN], failure[layout.ROW] = node, value
