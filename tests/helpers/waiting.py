"""Poll with a deadline instead of sleeping and hoping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
POLL_S = 0.02


def eventually(probe: Callable[[], T], wanted: Callable[[T], bool] = bool, deadline_s: float = 10.0) -> T:
    """Return the first value of `probe` that is `wanted`; fail when the deadline passes first."""
    end = time.monotonic() + deadline_s
    while True:
        value = probe()
        if wanted(value):
            return value
        assert time.monotonic() < end, f"still {value!r} after {deadline_s} s"
        time.sleep(POLL_S)
