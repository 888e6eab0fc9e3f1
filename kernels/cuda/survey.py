"""Prove that the parts of a nested value fill it exactly, and note where they are: one value at a time.

What is accepted, and where a failure is, is as in kernels/host/survey.py.  The depth is that of the table, not of
the data: nothing here calls itself.
"""

from __future__ import annotations

from kernels import layout
from kernels.cuda._cuda import device
from kernels.cuda.load import be32, byte
from kernels.cuda.table import BIAS, CHILD, CHILDREN, DESCRIPTOR_WIDTH, OFFSETS, OID, PLACES, SHAPE, WIDTH
from kernels.primitives import Int, i64, u64
from kernels.typing import DeviceArray

ABSENT = u64(layout.ABSENT)
MAX_DIMENSIONS = 6
"""PostgreSQL's MAXDIM."""
EMPTY, LOWER_INFINITE, UPPER_INFINITE = 1, 8, 16
"""Flags of a range, src/include/utils/rangetypes.h."""


@device
def locate_row(
    row: Int,
    words: DeviceArray,
    at: Int,
    end: Int,
    columns: Int,
    slots: Int,
    state: DeviceArray,
    places: DeviceArray,
) -> tuple[Int, Int, Int]:
    """Walk the fields of a row and note the nested ones; return (code, column, offset of a failure)."""
    for index in range(columns):
        if at + u64(4) > end:
            return i64(layout.ROW_MISMATCH), i64(index), at
        length = be32(words, at)
        if length < -1:
            return i64(layout.BAD_LENGTH), i64(index), at
        after = at + u64(4) + u64(max(length, i64(0)))
        if after > end:
            return i64(layout.ROW_MISMATCH), i64(index), at
        first = state[slots + u64(index)]
        if first >= 0:
            places[u64(first) + u64(row)] = at
        at = after
    if at != end:
        return i64(layout.ROW_MISMATCH), i64(columns - 1), end
    return i64(layout.OK), i64(0), at


@device
def look_into(
    item: Int, words: DeviceArray, column: Int, table: Int, state: DeviceArray, places: DeviceArray, storing: Int
) -> tuple[Int, Int, Int]:
    """Walk the parts of a value of a node with children, and note their places if `storing` is not 0.

    Returns
    -------
    (code, offset, parts)
        OK and how many there are, or a failure code and where it is.
    """
    place = u64(places[u64(state[column + PLACES]) + u64(item)])
    length = length_at(words, place)
    child = table + u64(state[column + CHILD]) * DESCRIPTOR_WIDTH
    shape = state[column + SHAPE]
    if shape == layout.STRUCT:
        return struct_parts(item, words, place, length, column, child, state, places, storing)
    if shape == layout.RANGE:
        return range_parts(item, words, place, length, child, state, places, storing)
    if shape == layout.ARRAY:
        return whole_parts(item, place, state[column + CHILDREN], child, state, places, storing)
    if shape == layout.HEADS:
        return head_parts(item, words, place, length, column, child, state, places, storing)
    return list_parts(item, words, place, length, column, child, state, places, storing)


@device
def length_at(words: DeviceArray, place: Int) -> Int:
    """Return the length of the field at a proven place, -1 for NULL."""
    if place == ABSENT:
        return i64(-1)
    return be32(words, place)


@device
def step(words: DeviceArray, at: Int, stop: Int) -> Int:
    """Return where the part that begins at `at` ends, or 0 if that is not before `stop`."""
    if at + u64(4) > stop:
        return u64(0)
    length = be32(words, at)
    if length < -1:
        return u64(0)
    after = at + u64(4) + u64(max(length, i64(0)))
    return after if after <= stop else u64(0)


@device
def list_parts(
    item: Int,
    words: DeviceArray,
    place: Int,
    length: Int,
    column: Int,
    child: Int,
    state: DeviceArray,
    places: DeviceArray,
    storing: Int,
) -> tuple[Int, Int, Int]:
    """Walk the elements of an array, the ranges of a multirange or the pairs of a map."""
    if length == -1:
        return i64(layout.OK), place, i64(0)
    at = place + u64(4)
    stop = at + u64(length)
    shape = state[column + SHAPE]
    of_array = shape in (layout.LIST, layout.ELEMENTS)
    if of_array:
        code, at, parts = array_head(words, at, length, shape, state[column + BIAS], state[child + OID])
    else:
        code, at, parts = counted_head(words, at, length)
    if code != layout.OK:
        return code, place, i64(0)
    first = u64(0)
    second = u64(0)
    if storing != 0:
        before = u64(places[u64(state[column + OFFSETS]) + u64(item)])
        first = u64(state[child + PLACES]) + before
        if shape == layout.MAP:
            second = u64(state[child + DESCRIPTOR_WIDTH + PLACES]) + before
    width = state[child + WIDTH]
    if of_array and are_alike(words, at, stop, parts, state[child + SHAPE], width):
        if storing != 0:
            for part in range(parts):
                places[first + u64(part)] = at + u64(part) * u64(i64(4) + width)
        return i64(layout.OK), stop, parts
    # A part takes four bytes at least, so an impossible number ends before it does harm.
    for part in range(parts):
        if storing != 0:
            places[first + u64(part)] = at
        after = step(words, at, stop)
        if after != u64(0) and not of_array and be32(words, at) == -1:
            after = u64(0)  # neither a range of a multirange nor a key is ever NULL
        if after != u64(0) and shape == layout.MAP:
            if storing != 0:
                places[second + u64(part)] = after
            after = step(words, after, stop)
        if after == u64(0):
            return i64(layout.BAD_NESTED), at, i64(0)
        at = after
    if at != stop:
        return i64(layout.BAD_NESTED), at, i64(0)
    return i64(layout.OK), at, parts


@device
def are_alike(words: DeviceArray, at: Int, stop: Int, parts: Int, shape: Int, width: Int) -> bool:
    """Tell whether an array's elements are all of their type's width, and fill it.

    Then it is known where each is: no load waits for the one before it, as it does in a walk.
    """
    if shape not in (layout.FIXED, layout.BYTES) or at + u64(parts * (i64(4) + width)) != stop:
        return False
    differences = i64(0)
    for part in range(parts):
        differences |= be32(words, at + u64(part) * u64(i64(4) + width)) ^ width
    return bool(differences == 0)


@device
def array_head(words: DeviceArray, at: Int, length: Int, shape: Int, bound: Int, oid: Int) -> tuple[Int, Int, Int]:
    """Read an array's header: (code, where its elements begin, how many)."""
    dimensions = dimensions_of(words, at, length)
    if dimensions < 0:
        return i64(layout.BAD_NESTED), at, i64(0)
    if be32(words, at + u64(8)) & i64(0xFFFFFFFF) != oid:
        return i64(layout.OTHER_TYPE), at, i64(0)
    size = product_of(words, at, length, dimensions)
    if size < 0:
        return i64(layout.BAD_NESTED), at, i64(0)
    if shape == layout.LIST and dimensions > 1:
        return i64(layout.OTHER_SHAPE), at, i64(0)
    if shape == layout.LIST and dimensions == 1 and be32(words, at + u64(16)) != bound:
        return i64(layout.OTHER_BOUND), at, i64(0)
    return i64(layout.OK), at + u64(i64(12) + i64(8) * dimensions), size


@device
def dimensions_of(words: DeviceArray, at: Int, length: Int) -> Int:
    """Return how many dimensions an array has, -1 if its header is not one."""
    if length < 12:
        return i64(-1)
    dimensions = be32(words, at)
    has_null = be32(words, at + u64(4))
    if dimensions < 0 or dimensions > MAX_DIMENSIONS or has_null < 0 or has_null > 1:
        return i64(-1)
    return dimensions if length >= i64(12) + i64(8) * dimensions else i64(-1)


@device
def product_of(words: DeviceArray, at: Int, length: Int, dimensions: Int) -> Int:
    """Return how many elements an array has, -1 if there is no room for so many."""
    room = (length - i64(12) - i64(8) * dimensions) >> i64(2)
    size = min(dimensions, i64(1))
    for dimension in range(dimensions):
        extent = be32(words, at + u64(12) + u64(8) * u64(dimension))
        if extent < 0 or extent * size > room:
            return i64(-1)
        size *= extent
    return size


@device
def whole_parts(
    item: Int, place: Int, children: Int, child: Int, state: DeviceArray, places: DeviceArray, storing: Int
) -> tuple[Int, Int, Int]:
    """Give all parts the place of the array itself: each reads its own share of it."""
    if storing != 0:
        for _ in range(children):
            places[u64(state[child + PLACES]) + u64(item)] = place
            child += DESCRIPTOR_WIDTH
    return i64(layout.OK), place, i64(1)


@device
def head_parts(
    item: Int,
    words: DeviceArray,
    place: Int,
    length: Int,
    column: Int,
    child: Int,
    state: DeviceArray,
    places: DeviceArray,
    storing: Int,
) -> tuple[Int, Int, Int]:
    """Note the sizes, or the lower bounds, of an array's dimensions."""
    if length == -1:
        return i64(layout.OK), place, i64(0)
    parts = dimensions_of(words, place + u64(4), length)
    if parts < 0:
        return i64(layout.BAD_NESTED), place, i64(0)
    if storing != 0:
        first = u64(state[child + PLACES]) + u64(places[u64(state[column + OFFSETS]) + u64(item)])
        at = place + u64(16) + u64(state[column + BIAS])
        for part in range(parts):
            places[first + u64(part)] = at + u64(8) * u64(part)
    return i64(layout.OK), place, parts


@device
def counted_head(words: DeviceArray, at: Int, length: Int) -> tuple[Int, Int, Int]:
    """Read the number of parts: (code, where they begin, how many)."""
    if length < 4:
        return i64(layout.BAD_NESTED), at, i64(0)
    parts = be32(words, at)
    if parts < 0 or parts > (length - i64(4)) >> i64(2):
        return i64(layout.BAD_NESTED), at, i64(0)
    return i64(layout.OK), at + u64(4), parts


@device
def struct_parts(
    item: Int,
    words: DeviceArray,
    place: Int,
    length: Int,
    column: Int,
    child: Int,
    state: DeviceArray,
    places: DeviceArray,
    storing: Int,
) -> tuple[Int, Int, Int]:
    """Walk the attributes of a composite."""
    children = state[column + CHILDREN]
    at = place + u64(4)
    stop = at + u64(max(length, i64(0)))
    if length != -1:
        if length < 4:
            return i64(layout.BAD_NESTED), place, i64(0)
        if be32(words, at) != children:
            return i64(layout.OTHER_TYPE), place, i64(0)
        at += u64(4)
    for _ in range(children):
        where = ABSENT
        if length != -1:
            if at + u64(4) > stop:
                return i64(layout.BAD_NESTED), at, i64(0)
            if be32(words, at) & i64(0xFFFFFFFF) != state[child + OID]:
                return i64(layout.OTHER_TYPE), at, i64(0)
            at += u64(4)
            where = at
            at = step(words, where, stop)
            if at == u64(0):
                return i64(layout.BAD_NESTED), where, i64(0)
        if storing != 0:
            places[u64(state[child + PLACES]) + u64(item)] = where
        child += DESCRIPTOR_WIDTH
    if length != -1 and at != stop:
        return i64(layout.BAD_NESTED), at, i64(0)
    return i64(layout.OK), at, i64(1)


@device
def range_parts(
    item: Int,
    words: DeviceArray,
    place: Int,
    length: Int,
    child: Int,
    state: DeviceArray,
    places: DeviceArray,
    storing: Int,
) -> tuple[Int, Int, Int]:
    """Walk the bounds of a range, and note its flags."""
    at = place + u64(4)
    stop = at + u64(max(length, i64(0)))
    flag = ABSENT
    flags = i64(EMPTY)
    if length != -1:
        if length < 1:
            return i64(layout.BAD_NESTED), place, i64(0)
        flags = i64(byte(words, at))
        if flags > 31:
            return i64(layout.BAD_NESTED), place, i64(0)
        flag = at
        at += u64(1)
    for bound in range(2):
        where = ABSENT
        if flags & (EMPTY | (UPPER_INFINITE if bound == 1 else LOWER_INFINITE)) == 0:
            where = at
            at = step(words, where, stop)
            if at == u64(0) or be32(words, where) == -1:
                return i64(layout.BAD_NESTED), where, i64(0)
        if storing != 0:
            places[u64(state[child + PLACES]) + u64(item)] = where
        child += DESCRIPTOR_WIDTH
    if length != -1 and at != stop:
        return i64(layout.BAD_NESTED), at, i64(0)
    if storing != 0:
        places[u64(state[child + PLACES]) + u64(item)] = flag
    return i64(layout.OK), at, i64(1)
