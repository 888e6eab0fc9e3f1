"""Where the time of a read goes: seconds on the clock and of the CPU, by stage; a few calls for every block."""

from __future__ import annotations

import time


class Stages:
    """Adds up what the stages of one stream take.  Not thread-safe: each thread has its own."""

    def __init__(self) -> None:
        self._seconds: dict[str, list[float]] = {}
        self.start()

    def start(self) -> None:
        """Begin the first stage, on this thread."""
        self._since, self._since_cpu = time.perf_counter(), time.thread_time()

    def end(self, name: str) -> None:
        """Add what was done on this thread since the end of the stage before; the next one begins."""
        now, now_cpu = time.perf_counter(), time.thread_time()
        self._add(name, now - self._since, now_cpu - self._since_cpu)
        self._since, self._since_cpu = now, now_cpu

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
