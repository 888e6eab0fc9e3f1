"""Arrow columns -> the tuples of COPY BINARY: sizes first, then values, column by column with one cursor per row.

Source of the format: the types' receive functions, src/backend/utils/adt/*.c in PostgreSQL.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.host._jit import inline, njit
from kernels.primitives import Bytes, Int, i64, u64
from kernels.typing import Int64s

GROUP = 10000
"""PostgreSQL's numeric counts in groups of four decimal digits."""


@inline
def is_valid(validity: Bytes, bit: Int) -> Any:
    """Look a bit up; an empty bitmap is all valid."""
    if validity.size == 0:
        return True
    return (validity[bit >> 3] >> (bit & 7)) & 1 != 0


@inline
def put(out: Bytes, at: Int, value: Int, width: Int) -> None:
    """Store the last `width` bytes of an integer, big-endian."""
    for index in range(width):
        out[at + index] = np.uint8((value >> (8 * (width - 1 - index))) & 0xFF)


@inline
def put_null(out: Bytes, cursors: Int64s, row: Int) -> None:
    """Write a NULL: a length of -1."""
    put(out, cursors[row], i64(-1), 4)
    cursors[row] += 4


@njit
def begin_rows(out: Bytes, sizes: Int64s, cursors: Int64s, columns: Int) -> None:
    """Place the rows one behind the other, and write their field counts."""
    at = i64(0)
    for row in range(sizes.size):
        put(out, at, i64(columns), 2)
        cursors[row] = at + 2
        at += sizes[row]


@njit
def fixed_sizes(sizes: Int64s, validity: Bytes, first: Int, width: Int) -> None:
    """Add a field of fixed width."""
    for row in range(sizes.size):
        sizes[row] += 4 + (width if is_valid(validity, first + row) else 0)


@njit
def varlen_sizes(sizes: Int64s, validity: Bytes, first: Int, offsets: Any, prefix: Int) -> None:
    """Add a field of any width; `prefix` is a version byte, or -1."""
    extra = 1 if prefix >= 0 else 0
    for row in range(sizes.size):
        valid = is_valid(validity, first + row)
        sizes[row] += 4 + (i64(offsets[row + 1]) - i64(offsets[row]) + extra if valid else 0)


@njit
def put_booleans(out: Bytes, cursors: Int64s, validity: Bytes, first: Int, bits: Bytes) -> None:
    """Write booleans."""
    for row in range(cursors.size):
        if not is_valid(validity, first + row):
            put_null(out, cursors, row)
            continue
        bit = first + row
        put(out, cursors[row], i64(1), 4)
        out[cursors[row] + 4] = (bits[bit >> 3] >> (bit & 7)) & 1
        cursors[row] += 5


@njit
def put_fixed(
    out: Bytes, cursors: Int64s, validity: Bytes, first: Int, values: Any, width: Int, bias: Int
) -> None:
    """Write integers, or floats seen as integers, of `width` bytes; `bias` is added."""
    for row in range(cursors.size):
        if not is_valid(validity, first + row):
            put_null(out, cursors, row)
            continue
        put(out, cursors[row], i64(width), 4)
        put(out, cursors[row] + 4, i64(values[row]) + bias, width)
        cursors[row] += 4 + width


@njit
def put_bytes(out: Bytes, cursors: Int64s, validity: Bytes, first: Int, data: Bytes, width: Int) -> None:
    """Write values of `width` bytes as they are."""
    for row in range(cursors.size):
        if not is_valid(validity, first + row):
            put_null(out, cursors, row)
            continue
        put(out, cursors[row], i64(width), 4)
        at = cursors[row] + 4
        for index in range(width):
            out[at + index] = data[row * width + index]
        cursors[row] = at + width


@njit
def put_varlen(
    out: Bytes, cursors: Int64s, validity: Bytes, first: Int, offsets: Any, data: Bytes, prefix: Int
) -> None:
    """Write values of any width, behind a version byte where there is one."""
    for row in range(cursors.size):
        if not is_valid(validity, first + row):
            put_null(out, cursors, row)
            continue
        begin, size = i64(offsets[row]), i64(offsets[row + 1]) - i64(offsets[row])
        at = cursors[row] + 4
        if prefix >= 0:
            put(out, cursors[row], size + 1, 4)
            out[at] = np.uint8(prefix)
            at += 1
        else:
            put(out, cursors[row], size, 4)
        for index in range(size):
            out[at + index] = data[begin + index]
        cursors[row] = at + size


@njit
def put_intervals(out: Bytes, cursors: Int64s, validity: Bytes, first: Int, words: Int64s) -> Int:
    """Write (months, days, ns) as (us, days, months); return the first row whose ns are no whole us, or -1."""
    for row in range(cursors.size):
        if not is_valid(validity, first + row):
            put_null(out, cursors, row)
            continue
        both, nanos = words[2 * row], words[2 * row + 1]
        if nanos % 1000 != 0:
            return row
        put(out, cursors[row], i64(16), 4)
        put(out, cursors[row] + 4, nanos // 1000, 8)
        put(out, cursors[row] + 12, both >> 32, 4)
        put(out, cursors[row] + 16, both, 4)
        cursors[row] += 20
    return -1


@inline
def divide(limbs: Any, count: Int, divisor: Int) -> Int:
    """Divide the little-endian number in `limbs` by a small one, in place; return the rest."""
    rest = u64(0)
    for step in range(count):
        index = count - 1 - step
        limb = limbs[index]
        high = (rest << u64(32)) | (limb >> u64(32))
        low = ((high % divisor) << u64(32)) | (limb & u64(0xFFFFFFFF))
        limbs[index] = ((high // divisor) << u64(32)) | (low // divisor)
        rest = low % divisor
    return rest


@njit
def numeric_digits(
    words: Any, limbs: Int, scale: Int, validity: Bytes, first: Int, digits: Any, heads: Int64s, sizes: Int64s
) -> None:
    """Split decimals into groups of digits, and add their sizes.

    Parameters
    ----------
    words : uint64 array
        `limbs` little-endian words per row, two's complement.
    scale : int
        Fraction digits, not negative.
    digits : int16 array, rows x groups
        Receives the groups, the last one first.
    heads : int64 array, rows x 4
        Receives where the groups begin, how many there are, the weight and the sign.
    """
    number = np.zeros(4, np.uint64)
    part = scale % 4
    fraction_groups = (scale + 3) // 4
    low_divisor, low_factor = u64(GROUP), i64(1)
    if part:
        low_divisor = u64(1)
        for _ in range(part):
            low_divisor *= u64(10)
        for _ in range(4 - part):
            low_factor *= 10
    for row in range(sizes.size):
        sizes[row] += 4
        if not is_valid(validity, first + row):
            continue
        negative = i64(words[row * limbs + limbs - 1]) < 0
        carry = u64(1)
        for limb in range(limbs):
            word = words[row * limbs + limb]
            if negative:
                word = ~word + carry
                carry = u64(1) if carry == u64(1) and word == u64(0) else u64(0)
            number[limb] = word
        used, count = limbs, 0
        while used > 0 and number[used - 1] == u64(0):
            used -= 1
        while used > 0:
            if count == 0:
                digits[row, 0] = i64(divide(number, used, low_divisor)) * low_factor
            else:
                digits[row, count] = i64(divide(number, used, u64(GROUP)))
            count += 1
            while used > 0 and number[used - 1] == u64(0):
                used -= 1
        skipped = 0
        while skipped < count and digits[row, skipped] == 0:
            skipped += 1
        heads[row, 0] = skipped
        heads[row, 1] = count - skipped
        heads[row, 2] = count - 1 - fraction_groups if count > skipped else 0
        heads[row, 3] = 0x4000 if negative else 0
        sizes[row] += 8 + 2 * (count - skipped)


@njit
def put_numerics(
    out: Bytes, cursors: Int64s, validity: Bytes, first: Int, digits: Any, heads: Int64s, scale: Int
) -> None:
    """Write what `numeric_digits` has split."""
    for row in range(cursors.size):
        if not is_valid(validity, first + row):
            put_null(out, cursors, row)
            continue
        at, begin, count = cursors[row], heads[row, 0], heads[row, 1]
        put(out, at, 8 + 2 * count, 4)
        put(out, at + 4, count, 2)
        put(out, at + 6, heads[row, 2], 2)
        put(out, at + 8, heads[row, 3], 2)
        put(out, at + 10, i64(scale), 2)
        for index in range(count):
            put(out, at + 12 + 2 * index, i64(digits[row, begin + count - 1 - index]), 2)
        cursors[row] = at + 12 + 2 * count
