"""Decode numeric: base-10000 digits into decimal128 or decimal256, exactly or not at all.

Source of the format: numeric_send in PostgreSQL's src/backend/utils/adt/numeric.c: int16 digit count, int16
weight, uint16 sign, uint16 display scale, then the digits; value = sum digit[i] * 10000 ** (weight - i).
"""

from __future__ import annotations

from kernels.host._jit import inline
from kernels.host.field import ABSENT, clear_bit, fail, move_cursor
from kernels.host.memory import be16, be32, be64
from kernels.layout import (
    BAD_LENGTH,
    BAD_NUMERIC,
    BEYOND_BLOCK,
    DELTA,
    NOT_A_NUMBER,
    OK,
    PRECISION,
    SCALE,
    TOO_PRECISE,
    TOP,
    VALIDITY_AT,
    VALUES_AT,
    WIDTH,
)
from kernels.primitives import Bytes, Int, i64, u64
from kernels.typing import Int64s, Uint32s


@inline
def numeric(
    wire: Bytes,
    last: Int,
    end: Int,
    cursors: Uint32s,
    first: Int,
    count: Int,
    column: Int64s,
    validity: Bytes,
    words: Int64s,
    tile: Int64s,
    failure: Int64s,
) -> Int:
    """Decode one numeric column; return the number of NULLs, or -1."""
    limbs = u64(column[WIDTH] // 8)
    at = u64(column[VALUES_AT] // 8) + limbs * u64(first)
    bits = u64(column[VALIDITY_AT] * 8 + first)
    scale = column[SCALE]
    precision = column[PRECISION]
    groups = (scale + 3) // 4
    spare = groups * 4 - scale
    bound = power_of_ten(min(precision, 18))
    unit = power_of_ten(spare)
    delta = u64(tile[DELTA])
    nulls = 0
    top = u64(0)
    for row in range(count):
        cursor = u64(cursors[row]) + delta
        if cursor > last and cursor != ABSENT:
            return fail(failure, BEYOND_BLOCK, row, cursor)
        length = be32(wire, cursor) if cursor <= last else i64(-1)
        target = at + limbs * u64(row)
        if length >= 8:
            after = cursor + u64(4) + u64(length)
            if after > end:
                return fail(failure, BEYOND_BLOCK, row, cursor)
            head = be64(wire, cursor + u64(4))
            digits = head >> 48
            weight = (head << 16) >> 48
            sign = (head >> 16) & 0xFFFF
            if digits < 0 or length != 8 + 2 * digits:
                return fail(failure, BAD_LENGTH, row, cursor)
            if sign & 0xBFFF != 0:
                return fail(failure, NOT_A_NUMBER if sign >= 0xC000 else BAD_NUMERIC, row, cursor)
            shift = 3 - weight - groups
            value = i64(-1)
            if digits <= 4 and 0 <= shift <= 3:
                value = aligned(be64(wire, cursor + u64(12)), digits, shift, spare, unit, bound)
            if value >= 0:
                flip = -(sign >> 14)
                value = (value ^ flip) - flip
                words[target] = value
                for limb in range(u64(1), limbs):
                    words[target + limb] = value >> 63
            else:
                code = general(wire, cursor + u64(12), digits, weight, precision, scale, words, target, limbs)
                if code != OK:
                    return fail(failure, code, row, cursor)
                if sign != 0:
                    negate(words, target, limbs)
        elif length == -1:
            for limb in range(limbs):
                words[target + limb] = 0
            clear_bit(validity, bits + u64(row))
            nulls += 1
        else:
            return fail(failure, BAD_LENGTH, row, cursor)
        top = move_cursor(cursors, row, cursor, length, top)
    tile[DELTA] = 0
    tile[TOP] = i64(top)
    return nulls


@inline
def aligned(word: Int, digits: Int, shift: Int, spare: Int, unit: Int, bound: Int) -> Int:
    """Convert up to four digits, loaded as one big-endian word, without a branch that depends on the value.

    `shift` 16-bit lanes below the last fraction group are empty in a value that fits the scale; `spare` decimal
    places of that group lie below the scale and must be zero, `unit` is 10 to that power.  Return -1 where
    anything does not fit: the general routine then decides.
    """
    lanes = u64(word)
    unused = u64(64 - 16 * digits)
    lanes = (lanes >> unused) << unused if digits > 0 else u64(0)
    high_bits = u64(0x8000800080008000)
    above_9999 = (lanes | (lanes + u64(0x58F058F058F058F0))) & high_bits
    drop = u64(16 * shift)
    group = lanes >> drop
    lost = lanes ^ (group << drop)
    value = (
        i64(group >> u64(48)) * 1000000000000
        + i64((group >> u64(32)) & u64(0xFFFF)) * 100000000
        + i64((group >> u64(16)) & u64(0xFFFF)) * 10000
        + i64(group & u64(0xFFFF))
    )
    kept = without_last(value, spare)
    inexact = kept * unit != value
    if (above_9999 | lost) != u64(0) or inexact or kept >= bound:
        return -1
    return kept


@inline
def without_last(value: Int, places: Int) -> Int:
    """Return ``value // 10 ** places`` for 0 … 3 places: divisions by constants, not by a variable."""
    if places == 0:
        return value
    if places == 1:
        return i64(u64(value) // u64(10))
    if places == 2:
        return i64(u64(value) // u64(100))
    return i64(u64(value) // u64(1000))


@inline
def power_of_ten(exponent: Int) -> Int:
    """Return ``10 ** exponent`` for 0 … 18."""
    power = i64(1)
    for _ in range(exponent):
        power *= 10
    return power


@inline
def general(
    wire: Bytes,
    at: Int,
    digits: Int,
    weight: Int,
    precision: Int,
    scale: Int,
    words: Int64s,
    target: Int,
    limbs: Int,
) -> Int:
    """Write any absolute value times 10 ** scale into `limbs` 64-bit words; return a failure code or OK."""
    for limb in range(limbs):
        words[target + limb] = 0
    if digits == 0:
        return OK
    # The last digit counts 10 ** (exponent - scale); digits are bounded by the precision before any is used.
    exponent = 4 * (weight - digits + 1) + scale
    leading = be16(wire, at)
    lead_zeros = (leading < 1000) + (leading < 100) + (leading < 10)
    if exponent < -3 or 4 * digits + exponent - lead_zeros > precision:
        return TOO_PRECISE
    partial = exponent < 0
    whole = digits - 1 if partial else digits
    for index in range(digits):
        digit = be16(wire, at + u64(2 * index))
        if digit < 0 or digit > 9999:
            return BAD_NUMERIC
        if index < whole:
            multiply_add(words, target, limbs, u64(10000), u64(digit))
            continue
        kept = without_last(digit, -exponent)
        if kept * power_of_ten(-exponent) != digit:
            return TOO_PRECISE
        multiply_add(words, target, limbs, u64(power_of_ten(4 + exponent)), u64(kept))
    while exponent > 0:
        step = min(exponent, 9)
        multiply_add(words, target, limbs, u64(power_of_ten(step)), u64(0))
        exponent -= step
    return OK


@inline
def multiply_add(words: Int64s, target: Int, limbs: Int, factor: Int, addend: Int) -> None:
    """Replace the little-endian number at `target` by ``number * factor + addend``; `factor` < 2 ** 32."""
    carry = addend
    for limb in range(limbs):
        word = u64(words[target + limb])
        low = (word & u64(0xFFFFFFFF)) * factor + carry
        high = (word >> u64(32)) * factor + (low >> u64(32))
        words[target + limb] = i64((high << u64(32)) | (low & u64(0xFFFFFFFF)))
        carry = high >> u64(32)


@inline
def negate(words: Int64s, target: Int, limbs: Int) -> None:
    """Two's complement of the little-endian number at `target`."""
    carry = u64(1)
    for limb in range(limbs):
        word = ~u64(words[target + limb]) + carry
        carry = u64(1) if (carry == u64(1) and word == u64(0)) else u64(0)
        words[target + limb] = i64(word)
