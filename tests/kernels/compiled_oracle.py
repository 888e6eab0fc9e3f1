"""The oracle once more, row by row and byte by byte, in a form that Numba compiles: for the long fuzz run.

Nothing is taken from the kernels but the places of results in the descriptor table: every access here is preceded
by its own bounds check against the row, and values are compared with what the arena holds byte by byte.
"""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np

from kernels import layout
from kernels.column import Column

BOOL, NUMBER, SIXTEEN, VARLEN, NUMERIC, INTERVAL = range(6)
KIND, SIZE, SHIFT, SMALLEST, LARGEST, INFINITE, PREFIX, IS_TEXT, DIGITS, SCALE = range(10)
COLUMN_WIDTH = 10

GOOD, BAD, OUT_OF_RANGE, NULL, LOOSE = range(5)
MORE, FULL, MESSAGE, TRAILER, FAILED = range(5)

DAYS = 10_957
MICROS = DAYS * 86_400_000_000
INT64 = 2**63
NUMBERS = {
    20: (8, 0, -INT64, INT64 - 1),
    21: (2, 0, -INT64, INT64 - 1),
    23: (4, 0, -INT64, INT64 - 1),
    26: (4, 0, -INT64, INT64 - 1),
    700: (4, 0, -INT64, INT64 - 1),
    701: (8, 0, -INT64, INT64 - 1),
    1082: (4, DAYS, -INT64, 2**31 - 1 - DAYS),
    1083: (8, 0, 0, 86_399_999_999),
    1114: (8, MICROS, -INT64, INT64 - 1 - MICROS),
    1184: (8, MICROS, -INT64, INT64 - 1 - MICROS),
    3220: (8, 0, -INT64, INT64 - 1),
    5069: (8, 0, -INT64, INT64 - 1),
}
TEXTS = (19, 25, 114, 1042, 1043)


def table(columns: Sequence[Column], *, infinity_is_null: bool) -> np.ndarray:
    """Describe columns for the functions below; INFINITE is 0 (has none), 1 (an error) or 2 (NULL)."""
    rows = np.zeros((len(columns), COLUMN_WIDTH), np.int64)
    for row, column in zip(rows, columns, strict=True):
        oid = column.type_oid
        row[PREFIX] = -1
        if oid in NUMBERS:
            row[KIND] = NUMBER
            row[[SIZE, SHIFT, SMALLEST, LARGEST]] = NUMBERS[oid]
        elif oid == 1700:
            row[KIND], row[DIGITS] = NUMERIC, (column.typmod - 4) >> 16
            row[SCALE] = (((column.typmod - 4) & 0x7FF) ^ 0x400) - 0x400
        elif oid in (16, 2950, 1186):
            row[KIND] = {16: BOOL, 2950: SIXTEEN, 1186: INTERVAL}[oid]
        else:
            row[KIND], row[IS_TEXT] = VARLEN, oid in TEXTS or oid == 3802
            row[PREFIX] = 1 if oid == 3802 else -1
        if oid in (1082, 1114, 1184, 1186):
            row[INFINITE] = 2 if infinity_is_null else 1
    return rows


@numba.njit
def big(wire, at, size):
    """Return a big-endian two's complement number."""
    number = np.int64(wire[at])
    if number >= 128:
        number -= 256
    for index in range(1, size):
        number = (number << 8) | np.int64(wire[at + index])
    return number


@numba.njit
def little(arena, at, size):
    """Return a little-endian two's complement number."""
    number = np.int64(arena[at + size - 1])
    if number >= 128:
        number -= 256
    for index in range(2, size + 1):
        number = (number << 8) | np.int64(arena[at + size - index])
    return number


@numba.njit
def walk(wire, begin, end, kind, fields, limit, starts, ends):
    """Return (rows, position, reason) of the rows in a block."""
    rows, at = 0, begin
    while rows < limit:
        if end - at < 5:
            return rows, at, MORE
        size = big(wire, at + 1, 4)
        if size < 4:
            return rows, at, FAILED
        if size + 1 > end - at:
            return rows, at, MORE
        if wire[at] != kind:
            return rows, at, MESSAGE
        if size < 6:
            return rows, at, FAILED
        count = big(wire, at + 5, 2)
        if count == -1 and size == 6 and kind == 100:  # d: a COPY has a trailer, the extended protocol none
            return rows, at + 7, TRAILER
        if count != fields:
            return rows, at, FAILED
        starts[rows], ends[rows] = at + 5, at + 1 + size
        rows, at = rows + 1, at + 1 + size
    return rows, at, FULL


@numba.njit
def row_fault(wire, begin, end, columns):
    """Return (verdict, column): the worst there is, and the first column that kernels may complain about."""
    at, first = begin + 2, columns.shape[0]
    for index in range(columns.shape[0]):
        if end - at < 4:
            return BAD, min(first, index)
        size = big(wire, at, 4)
        at += 4
        if size == -1:
            continue
        if size < 0 or size > end - at:
            return BAD, min(first, index)
        verdict = judge(wire, at, size, columns[index])
        if verdict == LOOSE:
            first = min(first, index)
        elif verdict in (BAD, OUT_OF_RANGE):
            return verdict, min(first, index)
        at += size
    if at != end:
        return BAD, min(first, columns.shape[0] - 1)
    return (LOOSE if first < columns.shape[0] else GOOD), first


@numba.njit
def judge(wire, at, size, column):
    """Say whether a field's bytes are a value, and one that Arrow has."""
    kind = column[KIND]
    if kind == BOOL:
        return GOOD if size == 1 and wire[at] <= 1 else BAD
    if kind == NUMBER:
        if size != column[SIZE]:
            return BAD
        return judge_number(big(wire, at, size), column)
    if kind == SIXTEEN:
        return GOOD if size == 16 else BAD
    if kind == INTERVAL:
        return judge_interval(wire, at, column) if size == 16 else BAD
    if kind == NUMERIC:
        return judge_numeric(wire, at, size, column)
    if column[PREFIX] >= 0:
        if size < 1 or wire[at] != column[PREFIX]:
            return BAD
        at, size = at + 1, size - 1
    return GOOD if column[IS_TEXT] == 0 or is_text(wire, at, at + size) else BAD


@numba.njit
def judge_number(number, column):
    top = np.int64(0x7FFFFFFF) if column[SIZE] == 4 else np.int64(0x7FFFFFFFFFFFFFFF)
    if column[INFINITE] > 0 and (number == top or number == -top - 1):
        return NULL if column[INFINITE] == 2 else OUT_OF_RANGE
    return GOOD if column[SMALLEST] <= number <= column[LARGEST] else OUT_OF_RANGE


@numba.njit
def judge_interval(wire, at, column):
    micros, days, months = big(wire, at, 8), big(wire, at + 8, 4), big(wire, at + 12, 4)
    top = micros == 0x7FFFFFFFFFFFFFFF and days == 0x7FFFFFFF and months == 0x7FFFFFFF
    bottom = micros == -0x7FFFFFFFFFFFFFFF - 1 and days == -0x80000000 and months == -0x80000000
    if top or bottom:
        return NULL if column[INFINITE] == 2 else OUT_OF_RANGE
    return GOOD if -9223372036854775 <= micros <= 9223372036854775 else OUT_OF_RANGE


@numba.njit
def judge_numeric(wire, at, size, column):
    if size < 8:
        return BAD
    count, weight, sign = big(wire, at, 2), big(wire, at + 2, 2), big(wire, at + 4, 2) & 0xFFFF
    if count < 0 or size != 8 + 2 * count:
        return BAD
    if sign == 0xC000 or sign == 0xD000 or sign == 0xF000:
        return OUT_OF_RANGE
    if sign not in (0, 0x4000):
        return BAD
    verdict = GOOD
    for index in range(count):
        group = big(wire, at + 8 + 2 * index, 2)
        if group < 0 or group > 9999:
            return BAD
        # Decimal places of this group's last digit, as a power of ten times 10 ** scale.
        place = 4 * (weight - index) + column[SCALE]
        for _ in range(4):
            if group % 10 != 0 and not 0 <= place < column[DIGITS]:
                verdict = OUT_OF_RANGE
            group //= 10
            place += 1
    if verdict == GOOD and count > 0 and (big(wire, at + 8, 2) == 0 or big(wire, at + 6 + 2 * count, 2) == 0):
        return LOOSE
    return verdict


@numba.njit
def is_text(wire, at, end):
    """Decode code points: continuation bytes in place, shortest form, no surrogates, none above U+10FFFF."""
    while at < end:
        lead = np.int64(wire[at])
        more = (
            0 if lead < 0x80 else 1 if lead >> 5 == 6 else 2 if lead >> 4 == 14 else 3 if lead >> 3 == 30 else -1
        )
        if more < 0 or at + more >= end:
            return False
        point = lead if more == 0 else lead & (0x3F >> more)
        for index in range(1, more + 1):
            byte = np.int64(wire[at + index])
            if byte >> 6 != 2:
                return False
            point = (point << 6) | (byte & 0x3F)
        smallest = 0 if more == 0 else 0x80 if more == 1 else 0x800 if more == 2 else 0x10000
        if point < smallest or point > 0x10FFFF or 0xD800 <= point <= 0xDFFF:
            return False
        at += 1 + more
    return True


@numba.njit
def row_equals(wire, begin, columns, row, arena, places, results):
    """Return the first column whose value in the arena is not the row's, or -1; the row must be good."""
    at = begin + 2
    for index in range(columns.shape[0]):
        size = big(wire, at, 4)
        at += 4
        bit = (arena[places[index, layout.VALIDITY_AT] + row // 8] >> (row % 8)) & 1
        null = size == -1 or judge(wire, at, size, columns[index]) == NULL
        size = max(size, 0)
        if null:
            if bit != 0:
                return index
        elif bit != 1 or not field_equals(
            wire, at, size, columns[index], row, arena, places[index], results[index]
        ):
            return index
        at += size
    return -1


@numba.njit
def field_equals(wire, at, size, column, row, arena, place, result):
    kind, values = column[KIND], place[layout.VALUES_AT]
    if kind == BOOL:
        return np.int64((arena[values + row // 8] >> (row % 8)) & 1) == np.int64(wire[at])
    if kind == NUMBER:
        return little(arena, values + row * size, size) == big(wire, at, size) + column[SHIFT]
    if kind == SIXTEEN:
        return same(wire, at, arena, values + 16 * row, 16)
    if kind == INTERVAL:
        found = values + 16 * row
        return (
            little(arena, found, 4) == big(wire, at + 12, 4)
            and little(arena, found + 4, 4) == big(wire, at + 8, 4)
            and little(arena, found + 8, 8) == big(wire, at, 8) * 1000
        )
    if kind == NUMERIC:
        return numeric_equals(wire, at, column, arena, values + row * place[layout.WIDTH], place[layout.WIDTH])
    if column[PREFIX] >= 0:
        at, size = at + 1, size - 1
    start, end = little(arena, values + 4 * row, 4), little(arena, values + 4 * row + 4, 4)
    return end - start == size and same(wire, at, arena, result[layout.DATA_AT] + start, size)


@numba.njit
def same(wire, at, arena, found, size):
    different = 0
    for index in range(size):
        different |= wire[at + index] ^ arena[found + index]
    return different == 0


@numba.njit
def numeric_equals(wire, at, column, arena, found, width):
    """Compare digit by digit: the arena's number is divided by ten until nothing is left."""
    negative = arena[found + width - 1] >= 128
    limbs = np.empty(8, np.int64)
    carry = 1
    for index in range(width // 4):
        limb = little(arena, found + 4 * index, 4) & 0xFFFFFFFF
        if negative:
            limb = (limb ^ 0xFFFFFFFF) + carry
            carry = limb >> 32
            limb &= 0xFFFFFFFF
        limbs[index] = limb
    count, weight, sign = big(wire, at, 2), big(wire, at + 2, 2), big(wire, at + 4, 2)
    if negative and sign == 0:
        return False
    zero = True
    for power in range(78):
        digit = 0
        for index in range(width // 4 - 1, -1, -1):
            limb = (digit << 32) | limbs[index]
            limbs[index], digit = limb // 10, limb % 10
        place = power - column[SCALE]  # the digit that counts 10 ** place
        group = weight - place // 4
        wanted = 0
        if 0 <= group < count:
            wanted = big(wire, at + 8 + 2 * group, 2)
            for _ in range(place % 4):
                wanted //= 10
            wanted %= 10
        if digit != wanted:
            return False
        zero = zero and digit == 0
    return zero or negative == (sign != 0)
