"""Find where the parts of nested values are: one pass over the rows, then one per node, parents before children.

Every length is proven to lie inside the value that holds it before it is used, so what comes later may trust the
places.  The depth is that of the table, not of the data: nothing here calls itself.
"""

from __future__ import annotations

from kernels.host._jit import inline, njit
from kernels.host.field import ABSENT, fail
from kernels.host.memory import be32
from kernels.layout import (
    ARRAY,
    BAD_LENGTH,
    BAD_NESTED,
    BIAS,
    CHILD,
    CHILDREN,
    COLUMN,
    ELEMENTS,
    HEADS,
    LIST,
    MAP,
    MULTIRANGE,
    OID,
    OK,
    OTHER_BOUND,
    OTHER_SHAPE,
    OTHER_TYPE,
    PLACES,
    RANGE,
    ROW_MISMATCH,
    SHAPE,
    STRUCT,
)
from kernels.primitives import Bytes, Int, i64, u64
from kernels.typing import Int64s, Uint32s

MAX_DIMENSIONS = 6
"""PostgreSQL's MAXDIM."""
EMPTY, LOWER_INFINITE, UPPER_INFINITE = 1, 8, 16
"""Flags of a range, src/include/utils/rangetypes.h."""


@njit
def survey(
    wire: Bytes,
    starts: Uint32s,
    ends: Uint32s,
    rows: Int,
    fields: Int,
    nodes: Int64s,
    places: Uint32s,
    offsets: Uint32s,
    counts: Int64s,
    failure: Int64s,
) -> Int:
    """Find the places of all nested fields and how many each node has.

    Parameters
    ----------
    wire : uint8 array
        The block.
    starts, ends : uint32 arrays
        From `scan`.
    rows, fields : int
        Rows to look at, and fields of each.
    nodes : int64 array, nodes x DESCRIPTOR_WIDTH
        The plan's descriptor table: the first `fields` are the columns.
    places, offsets : uint32 arrays, nested nodes x capacity
        Receive where each value's length word is, and where a list's parts begin among its child's.  A quarter of
        the rows' bytes, and no less than their number plus one, is always enough.
    counts : int64 array of nodes
        Receives the number of values of each node.
    failure : int64 array
        The failure record; ROW counts the values of the node COLUMN.

    Returns
    -------
    int
        0, or -1 with `failure` filled.
    """
    counts[:fields] = rows
    if locate(wire, starts, ends, rows, fields, nodes, places, failure) < 0:
        return -1
    for node in range(nodes.shape[0]):
        slot = nodes[node, PLACES]
        child = nodes[node, CHILD]
        if slot < 0 or child < 0:
            continue
        shape = nodes[node, SHAPE]
        count = counts[node]
        parts = count
        if shape in (LIST, MULTIRANGE, MAP, HEADS, ELEMENTS):
            parts = lists(wire, count, node, nodes, places, offsets[slot], failure)
        elif shape == STRUCT:
            parts = structs(wire, count, node, nodes, places, failure)
        elif shape == RANGE:
            parts = ranges(wire, count, node, nodes, places, failure)
        elif shape == ARRAY:
            for part in range(child, child + nodes[node, CHILDREN]):
                places[nodes[part, PLACES], :count] = places[slot, :count]
        if parts < 0:
            failure[COLUMN] = node
            return -1
        for index in range(child, child + nodes[node, CHILDREN]):
            counts[index] = parts
    return OK


@inline
def locate(
    wire: Bytes,
    starts: Uint32s,
    ends: Uint32s,
    rows: Int,
    fields: Int,
    nodes: Int64s,
    places: Uint32s,
    failure: Int64s,
) -> Int:
    """Walk the fields of every row and note the nested ones; return 0 or -1."""
    for row in range(rows):
        at = u64(starts[u64(row)]) + u64(2)
        stop = u64(ends[u64(row)])
        for index in range(fields):
            failure[COLUMN] = index
            if at + u64(4) > stop:
                return fail(failure, ROW_MISMATCH, row, at)
            length = be32(wire, at)
            if length < -1:
                return fail(failure, BAD_LENGTH, row, at)
            after = at + u64(4) + u64(max(length, i64(0)))
            if after > stop:
                return fail(failure, ROW_MISMATCH, row, at)
            slot = nodes[index, PLACES]
            if slot >= 0:
                places[slot, row] = at
            at = after
        if at != stop:
            failure[COLUMN] = fields - 1
            return fail(failure, ROW_MISMATCH, row, stop)
    return 0


@inline
def length_at(wire: Bytes, place: Int) -> Int:
    """Return the length of the field at a proven place, -1 for NULL."""
    return i64(-1) if place == ABSENT else be32(wire, place)


@inline
def step(wire: Bytes, at: Int, stop: Int) -> Int:
    """Return where the part that begins at `at` ends, or 0 if that is not before `stop`."""
    if at + u64(4) > stop:
        return u64(0)
    length = be32(wire, at)
    if length < -1:
        return u64(0)
    after = at + u64(4) + u64(max(length, i64(0)))
    return after if after <= stop else u64(0)


@inline
def lists(
    wire: Bytes, count: Int, node: Int, nodes: Int64s, places: Uint32s, offsets: Uint32s, failure: Int64s
) -> Int:
    """Note the parts of arrays, multiranges or maps; return how many, or -1."""
    shape = nodes[node, SHAPE]
    slot = nodes[node, PLACES]
    child = nodes[node, CHILD]
    first = nodes[child, PLACES]
    second = nodes[child + 1, PLACES] if shape == MAP else first
    total = i64(0)
    offsets[0] = 0
    for index in range(count):
        place = u64(places[slot, index])
        length = length_at(wire, place)
        offsets[index + 1] = total
        if length == -1:
            continue
        at = place + u64(4)
        stop = at + u64(length)
        if shape in (LIST, ELEMENTS):
            code, at, parts = array_head(wire, at, length, shape, nodes[node, BIAS], nodes[child, OID])
        elif shape == HEADS:
            parts = dimensions_of(wire, at, length)
            code = OK if parts >= 0 else BAD_NESTED
        else:
            code, at, parts = counted_head(wire, at, length)
        if code != OK:
            return fail(failure, code, index, place)
        if shape == HEADS:
            for part in range(parts):
                places[first, total + part] = at + u64(12 + nodes[node, BIAS] + 8 * part)
            total += parts
            offsets[index + 1] = total
            continue
        # A part takes four bytes at least, so an impossible number ends before it does harm.
        for _ in range(parts):
            places[first, total] = at
            after = step(wire, at, stop)
            if after != u64(0) and shape in (MULTIRANGE, MAP) and be32(wire, at) == -1:
                after = u64(0)  # neither a range of a multirange nor a key is ever NULL
            if after != u64(0) and shape == MAP:
                places[second, total] = after
                after = step(wire, after, stop)
            if after == u64(0):
                return fail(failure, BAD_NESTED, index, at)
            at = after
            total += 1
        if at != stop:
            return fail(failure, BAD_NESTED, index, at)
        offsets[index + 1] = total
    return total


@inline
def array_head(wire: Bytes, at: Int, length: Int, shape: Int, bound: Int, oid: Int) -> tuple[Int, Int, Int]:
    """Read an array's header: (code, where its elements begin, how many)."""
    dimensions = dimensions_of(wire, at, length)
    if dimensions < 0:
        return BAD_NESTED, at, i64(0)
    if be32(wire, at + u64(8)) & 0xFFFFFFFF != oid:
        return OTHER_TYPE, at, i64(0)
    size = product_of(wire, at, length, dimensions)
    if size < 0:
        return BAD_NESTED, at, i64(0)
    if shape == LIST and dimensions > 1:
        return OTHER_SHAPE, at, i64(0)
    if shape == LIST and dimensions == 1 and be32(wire, at + u64(16)) != bound:
        return OTHER_BOUND, at, i64(0)
    return OK, at + u64(12 + 8 * dimensions), size


@inline
def dimensions_of(wire: Bytes, at: Int, length: Int) -> Int:
    """Return how many dimensions an array has, -1 if its header is not one."""
    if length < 12:
        return i64(-1)
    dimensions = be32(wire, at)
    has_null = be32(wire, at + u64(4))
    if not 0 <= dimensions <= MAX_DIMENSIONS or not 0 <= has_null <= 1 or length < 12 + 8 * dimensions:
        return i64(-1)
    return dimensions


@inline
def product_of(wire: Bytes, at: Int, length: Int, dimensions: Int) -> Int:
    """Return how many elements an array has, -1 if there is no room for so many."""
    room = (length - 12 - 8 * dimensions) // 4
    size = i64(min(dimensions, 1))
    for dimension in range(dimensions):
        extent = be32(wire, at + u64(12 + 8 * dimension))
        if extent < 0 or extent * size > room:
            return i64(-1)
        size *= extent
    return size


@inline
def counted_head(wire: Bytes, at: Int, length: Int) -> tuple[Int, Int, Int]:
    """Read the number of parts: (code, where they begin, how many)."""
    if length < 4:
        return BAD_NESTED, at, i64(0)
    parts = be32(wire, at)
    if parts < 0 or parts > (length - 4) // 4:
        return BAD_NESTED, at, i64(0)
    return OK, at + u64(4), parts


@inline
def structs(wire: Bytes, count: Int, node: Int, nodes: Int64s, places: Uint32s, failure: Int64s) -> Int:
    """Note the attributes of composites; return `count`, or -1."""
    slot = nodes[node, PLACES]
    child = nodes[node, CHILD]
    children = nodes[node, CHILDREN]
    for index in range(count):
        place = u64(places[slot, index])
        length = length_at(wire, place)
        if length == -1:
            for part in range(child, child + children):
                places[nodes[part, PLACES], index] = ABSENT
            continue
        at = place + u64(4)
        stop = at + u64(length)
        if length < 4:
            return fail(failure, BAD_NESTED, index, place)
        if be32(wire, at) != children:
            return fail(failure, OTHER_TYPE, index, place)
        at += u64(4)
        for part in range(child, child + children):
            if at + u64(4) > stop:
                return fail(failure, BAD_NESTED, index, at)
            if be32(wire, at) & 0xFFFFFFFF != nodes[part, OID]:
                return fail(failure, OTHER_TYPE, index, at)
            at += u64(4)
            after = step(wire, at, stop)
            if after == u64(0):
                return fail(failure, BAD_NESTED, index, at)
            places[nodes[part, PLACES], index] = at
            at = after
        if at != stop:
            return fail(failure, BAD_NESTED, index, at)
    return count


@inline
def ranges(wire: Bytes, count: Int, node: Int, nodes: Int64s, places: Uint32s, failure: Int64s) -> Int:
    """Note the bounds and flags of ranges; return `count`, or -1."""
    slot = nodes[node, PLACES]
    child = nodes[node, CHILD]
    lower = nodes[child, PLACES]
    upper = nodes[child + 1, PLACES]
    flag = nodes[child + 2, PLACES]
    for index in range(count):
        place = u64(places[slot, index])
        length = length_at(wire, place)
        places[lower, index] = ABSENT
        places[upper, index] = ABSENT
        places[flag, index] = ABSENT
        if length == -1:
            continue
        if length < 1:
            return fail(failure, BAD_NESTED, index, place)
        at = place + u64(4)
        stop = at + u64(length)
        flags = i64(wire[at])
        if flags > 31:
            return fail(failure, BAD_NESTED, index, place)
        places[flag, index] = at
        at += u64(1)
        for bound in range(2):
            if flags & (EMPTY | (UPPER_INFINITE if bound == 1 else LOWER_INFINITE)) != 0:
                continue
            after = step(wire, at, stop)
            if after == u64(0) or be32(wire, at) == -1:
                return fail(failure, BAD_NESTED, index, at)
            places[upper if bound == 1 else lower, index] = at
            at = after
        if at != stop:
            return fail(failure, BAD_NESTED, index, at)
    return count
