"""Prove that text is UTF-8: PostgreSQL promises it, a query that changes client_encoding breaks the promise."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.host._jit import inline
from kernels.primitives import Bytes, Int, u64
from kernels.typing import Int64s


@inline
def is_ascii(words: Int64s, arena: Bytes, at: Int, size: Int) -> Any:
    """Tell whether ``arena[at:at + size]`` is ASCII; `at` is a multiple of 8."""
    whole = u64(size // 8)
    base = u64(at // 8)
    seen = np.int64(0)
    for word in range(whole):
        seen |= words[base + word]
    for byte in range(size % 8):
        seen |= np.int64(arena[u64(at + (size // 8) * 8 + byte)])
    return seen & np.int64(-0x7F7F7F7F7F7F7F80) == 0


@inline
def first_invalid(arena: Bytes, at: Int, offsets: Any, offsets_at: Int, rows: Int) -> Int:
    """Return the first row whose value is not valid UTF-8 by itself, or -1."""
    for row in range(rows):
        begin = u64(at + offsets[u64(offsets_at + row)])
        end = u64(at + offsets[u64(offsets_at + row + 1)])
        if not is_utf8(arena, begin, end):
            return row
    return -1


@inline
def is_utf8(text: Bytes, begin: Int, end: Int) -> Any:
    """Tell whether ``text[begin:end]`` is well-formed (Unicode 15, table 3-7)."""
    at = begin
    while at < end:
        lead = u64(text[at])
        at += u64(1)
        if lead < u64(0x80):
            continue
        low = u64(0x80)
        high = u64(0xBF)
        if lead < u64(0xC2):
            return False
        if lead < u64(0xE0):
            more = u64(1)
        elif lead < u64(0xF0):
            more = u64(2)
            if lead == u64(0xE0):
                low = u64(0xA0)
            elif lead == u64(0xED):
                high = u64(0x9F)
        elif lead < u64(0xF5):
            more = u64(3)
            if lead == u64(0xF0):
                low = u64(0x90)
            elif lead == u64(0xF4):
                high = u64(0x8F)
        else:
            return False
        if at + more > end:
            return False
        for _ in range(more):
            byte = u64(text[at])
            if byte < low or byte > high:
                return False
            low = u64(0x80)
            high = u64(0xBF)
            at += u64(1)
    return True
