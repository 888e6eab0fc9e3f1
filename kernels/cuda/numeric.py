"""Put numeric: base-10000 digits into decimal128 or decimal256, exactly or not at all.

The format and both routines are those of kernels/host/numeric.py: the same fields are accepted.
"""

from __future__ import annotations

import numpy as np

from kernels import layout
from kernels.cuda._cuda import device
from kernels.cuda.load import be16, be64
from kernels.cuda.table import PRECISION, SCALE, VALUES_AT, WIDTH
from kernels.primitives import Int, i64, u64
from kernels.typing import DeviceArena, DeviceArray

POWERS = np.array([10**exponent for exponent in range(19)], np.int64)


@device
def numeric(
    words: DeviceArray, at: Int, length: Int, row: Int, column: Int, state: DeviceArray, arena: DeviceArena
) -> Int:
    """Put a numeric; return OK or a failure code."""
    longs = arena[3]
    if length < 8:
        return layout.BAD_LENGTH
    head = be64(words, at)  # digits, weight, sign, display scale
    digits = head >> i64(48)
    weight = (head << i64(16)) >> i64(48)
    sign = (head >> i64(16)) & i64(0xFFFF)
    if digits < 0 or length != i64(8) + i64(2) * digits:
        return layout.BAD_LENGTH
    if sign & i64(0xBFFF) != 0:
        return layout.NOT_A_NUMBER if sign >= i64(0xC000) else layout.BAD_NUMERIC
    limbs = state[column + WIDTH] >> i64(3)
    target = (u64(state[column + VALUES_AT]) >> u64(3)) + u64(row * limbs)
    scale = state[column + SCALE]
    precision = state[column + PRECISION]
    groups = (scale + i64(3)) >> i64(2)
    shift = i64(3) - weight - groups
    value = i64(-1)
    if digits <= 4 and shift >= 0 and shift <= 3:
        word = u64(be64(words, at + u64(8)))
        value = aligned(word, digits, shift, groups * i64(4) - scale, power_of_ten(min(precision, i64(18))))
    if value >= 0:
        signed = -value if sign != 0 else value
        longs[target] = signed
        for limb in range(1, limbs):
            longs[target + u64(limb)] = signed >> i64(63)
        return layout.OK
    code = general(words, at + u64(8), digits, weight, precision, scale, longs, target, limbs)
    if code == layout.OK and sign != 0:
        negate(longs, target, limbs)
    return code


@device
def aligned(word: Int, digits: Int, shift: Int, spare: Int, bound: Int) -> Int:
    """Convert up to four digits, loaded as one big-endian word.

    `shift` 16-bit lanes below the last fraction group are empty in a value that fits the scale; `spare` decimal
    places of that group lie below the scale and must be zero.  Return -1 where anything does not fit: the
    general routine then decides.
    """
    lanes = u64(0)
    if digits > 0:
        unused = u64(64) - u64(16) * u64(digits)
        lanes = (word >> unused) << unused
    drop = u64(16) * u64(shift)
    group = lanes >> drop
    value = (
        i64(group >> u64(48)) * i64(1000000000000)
        + i64((group >> u64(32)) & u64(0xFFFF)) * i64(100000000)
        + i64((group >> u64(16)) & u64(0xFFFF)) * i64(10000)
        + i64(group & u64(0xFFFF))
    )
    kept = without_last(value, spare)
    if above_9999(lanes) or (group << drop) != lanes or kept * power_of_ten(spare) != value or kept >= bound:
        return i64(-1)
    return kept


@device
def above_9999(lanes: Int) -> bool:
    """Tell whether one of four 16-bit lanes is no base-10000 digit."""
    high_bits = u64(0x8000800080008000)
    low_parts = lanes & ~high_bits  # so that no lane carries into the next
    return bool(((lanes | (low_parts + u64(0x58F058F058F058F0))) & high_bits) != u64(0))


@device
def without_last(value: Int, places: Int) -> Int:
    """Return ``value // 10 ** places`` for 0 … 3 places: divisions by constants, not by a variable."""
    if places == 0:
        return value
    if places == 1:
        return i64(u64(value) // u64(10))
    if places == 2:
        return i64(u64(value) // u64(100))
    return i64(u64(value) // u64(1000))


@device
def power_of_ten(exponent: Int) -> Int:
    """Return ``10 ** exponent`` for 0 … 18."""
    return POWERS[u64(exponent)]


@device
def general(
    words: DeviceArray,
    at: Int,
    digits: Int,
    weight: Int,
    precision: Int,
    scale: Int,
    longs: DeviceArray,
    target: Int,
    limbs: Int,
) -> Int:
    """Write any absolute value times 10 ** scale into `limbs` 64-bit words; return a failure code or OK."""
    for limb in range(limbs):
        longs[target + u64(limb)] = i64(0)
    if digits == 0:
        return layout.OK
    # The last digit counts 10 ** (exponent - scale); digits are bounded by the precision before any is used.
    exponent = i64(4) * (weight - digits + i64(1)) + scale
    leading = be16(words, at)
    lead_zeros = i64(leading < 1000) + i64(leading < 100) + i64(leading < 10)
    if exponent < -3 or i64(4) * digits + exponent - lead_zeros > precision:
        return layout.TOO_PRECISE
    partial = exponent < 0
    whole = digits - i64(1) if partial else digits
    for index in range(digits):
        digit = be16(words, at + u64(2 * index))
        if digit < 0 or digit > 9999:
            return layout.BAD_NUMERIC
        if index < whole:
            multiply_add(longs, target, limbs, u64(10000), u64(digit))
            continue
        kept = without_last(digit, -exponent)
        if kept * power_of_ten(-exponent) != digit:
            return layout.TOO_PRECISE
        multiply_add(longs, target, limbs, u64(power_of_ten(i64(4) + exponent)), u64(kept))
    while exponent > 0:
        step = min(exponent, i64(9))
        multiply_add(longs, target, limbs, u64(power_of_ten(step)), u64(0))
        exponent -= step
    return layout.OK


@device
def multiply_add(longs: DeviceArray, target: Int, limbs: Int, factor: Int, addend: Int) -> None:
    """Replace the little-endian number at `target` by ``number * factor + addend``; `factor` < 2 ** 32."""
    carry = addend
    for limb in range(limbs):
        word = u64(longs[target + u64(limb)])
        low = (word & u64(0xFFFFFFFF)) * factor + carry
        high = (word >> u64(32)) * factor + (low >> u64(32))
        longs[target + u64(limb)] = i64((high << u64(32)) | (low & u64(0xFFFFFFFF)))
        carry = high >> u64(32)


@device
def negate(longs: DeviceArray, target: Int, limbs: Int) -> None:
    """Two's complement of the little-endian number at `target`."""
    carry = u64(1)
    for limb in range(limbs):
        word = ~u64(longs[target + u64(limb)])
        if carry == u64(1) and word == ~u64(0):
            word = u64(0)
        else:
            word += carry
            carry = u64(0)
        longs[target + u64(limb)] = i64(word)
