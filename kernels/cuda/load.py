"""Big-endian loads at any byte of a block that is seen as aligned 64-bit words.

A device loads aligned words only.  Two neighbouring words hold any eight bytes; a load at a position that lies in
the block therefore reads up to 15 bytes behind it, which the block's pad covers.
"""

from __future__ import annotations

from kernels.cuda._cuda import device
from kernels.primitives import Int, i64, u64
from kernels.typing import DeviceArray


@device
def window(words: DeviceArray, at: Int) -> Int:
    """Load the eight bytes at byte `at` in their order in memory: the first is the lowest."""
    shift = (at & u64(7)) << u64(3)
    word = at >> u64(3)
    return (words[word] >> shift) | ((words[word + u64(1)] << u64(8)) << (u64(56) - shift))


@device
def byte(words: DeviceArray, at: Int) -> Int:
    """Load the byte at `at`."""
    return (words[at >> u64(3)] >> ((at & u64(7)) << u64(3))) & u64(0xFF)


@device
def swapped(word: Int) -> Int:
    """Reverse the bytes of a word."""
    word = ((word & u64(0x00FF00FF00FF00FF)) << u64(8)) | ((word >> u64(8)) & u64(0x00FF00FF00FF00FF))
    word = ((word & u64(0x0000FFFF0000FFFF)) << u64(16)) | ((word >> u64(16)) & u64(0x0000FFFF0000FFFF))
    return (word << u64(32)) | (word >> u64(32))


@device
def be64(words: DeviceArray, at: Int) -> Int:
    """Load a big-endian int64."""
    return i64(swapped(window(words, at)))


@device
def be32(words: DeviceArray, at: Int) -> Int:
    """Load a big-endian int32, sign-extended to int64."""
    return be64(words, at) >> i64(32)


@device
def be16(words: DeviceArray, at: Int) -> Int:
    """Load a big-endian int16, sign-extended to int64."""
    return be64(words, at) >> i64(48)
