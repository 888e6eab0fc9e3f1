"""Prove that text is UTF-8: each byte above 127 proves its own place, so threads can share a value."""

from __future__ import annotations

from kernels.cuda._cuda import device
from kernels.cuda.load import byte
from kernels.primitives import Int, u64
from kernels.typing import DeviceArray

BEYOND_ASCII = u64(0x8080808080808080)
"""The bits that no ASCII byte has, in a word of eight."""


@device
def is_text(words: DeviceArray, at: Int, stop: Int, begin: Int, end: Int) -> bool:
    """Tell whether the bytes from `at` to `stop` have their places in a value that lies from `begin` to `end`.

    A value is well-formed (Unicode 15, table 3-7) if all its bytes have.
    """
    while at < stop:
        octet = byte(words, at)
        if octet >= u64(0xC0):
            if not leads(words, at, end, octet):
                return False
        elif octet >= u64(0x80) and not follows(words, at, begin):
            return False
        at += u64(1)
    return True


@device
def leads(words: DeviceArray, at: Int, end: Int, lead: Int) -> bool:
    """Tell whether the bytes behind a lead byte complete its character."""
    more = length_of(lead) - u64(1)
    if more == u64(0) or at + more >= end:
        return False
    low = u64(0x80)
    high = u64(0xBF)
    if lead == u64(0xE0):
        low = u64(0xA0)
    elif lead == u64(0xED):
        high = u64(0x9F)
    elif lead == u64(0xF0):
        low = u64(0x90)
    elif lead == u64(0xF4):
        high = u64(0x8F)
    for place in range(more):
        octet = byte(words, at + u64(1) + u64(place))
        if octet < low or octet > high:
            return False
        low = u64(0x80)
        high = u64(0xBF)
    return True


@device
def follows(words: DeviceArray, at: Int, begin: Int) -> bool:
    """Tell whether a continuation byte belongs to a character that begins up to three bytes before it."""
    for distance in range(1, 4):
        if at < begin + u64(distance):
            return False
        octet = byte(words, at - u64(distance))
        if octet < u64(0x80) or octet >= u64(0xC0):
            return bool(length_of(octet) > u64(distance))
    return False


@device
def length_of(lead: Int) -> Int:
    """Return the bytes of a character that begins with `lead`; 1 where no character of several bytes does."""
    if lead < u64(0xC2) or lead > u64(0xF4):
        return u64(1)
    if lead < u64(0xE0):
        return u64(2)
    return u64(3) if lead < u64(0xF0) else u64(4)
