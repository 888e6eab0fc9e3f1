"""The CUDA twin's proof of UTF-8 against Python's decoder, over all sequences that matter, cut into pieces.

``python -m tests.kernels.text_compiled``: its device functions are compiled for the CPU, see `compiled_cuda`.
"""

from __future__ import annotations

import sys

import numpy as np

from tests.kernels import compiled_cuda
from tests.kernels.test_refusals import sequences

PIECES = (1, 2, 3, 5, 8)
AROUND = (
    (b"", b""), (b"a", b"b"), (b"\xc3", b"\xa9"), (b"\xe6", b"\xa5"), (b"\xf0", b"\x98\x98"),
    (b"\xe6\x97", b"\x97\xa5"), (b"\xf0\x9f\x90", b"\x9f\x90\x98"),
)  # fmt: skip
"""What lies around a value: it would complete it, or be completed by it."""


def is_utf8(value: bytes) -> bool:
    """Ask Python."""
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def main() -> int:
    """Compare; return 1 at the first difference."""
    is_text = compiled_cuda.utf8.is_text
    checked = 0
    for sequence in sequences():
        for before, after in AROUND:
            block = np.frombuffer((before + sequence + after).ljust(48, b"\x80"), np.uint8).copy()
            words, begin, end = block.view(np.uint64), np.uint64(len(before)), np.uint64(len(before + sequence))
            for size in PIECES:
                pieces = range(int(begin), int(end), size)
                found = all(
                    is_text(words, np.uint64(at), min(np.uint64(at + size), end), begin, end) for at in pieces
                )
                checked += 1
                if found != is_utf8(sequence):
                    print(f"{sequence.hex()} in pieces of {size}: {found}")
                    return 1
    print(f"{checked} checked")
    return 0


if __name__ == "__main__":
    sys.exit(main())
