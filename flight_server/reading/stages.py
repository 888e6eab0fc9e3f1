"""Where the time of a read goes: seconds on the clock and of the CPU, by stage; a few calls for every block."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stages:
    """Adds up what the stages of one stream take.  Not thread-safe: each thread has its own."""

    def __init__(self) -> None:
        self._seconds: dict[str, list[float]] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add what is done inside, on this thread."""
        started, started_cpu = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            self._add(name, time.perf_counter() - started, time.thread_time() - started_cpu)

    def add(self, other: Stages) -> None:
        """Add those of another stream: their times ran side by side."""
        for name, (seconds, cpu_s) in other._seconds.items():
            self._add(name, seconds, cpu_s)

    def facts(self) -> dict[str, dict[str, float]]:
        """Return seconds by stage, on the clock and of the CPU, in the order they first came."""
        return {
            name: {"wall_s": round(seconds, 6), "cpu_s": round(cpu_s, 6)}
            for name, (seconds, cpu_s) in self._seconds.items()
        }

    def _add(self, name: str, seconds: float, cpu_s: float) -> None:
        kept = self._seconds.setdefault(name, [0.0, 0.0])
        kept[0] += seconds
        kept[1] += cpu_s
