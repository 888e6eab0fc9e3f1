"""What one read amounts to: its line in the log, and its deadline."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

import structlog

from flight_server.observe import metrics
from flight_server.reading.stages import Stages
from flight_server.reading.watchdog import Watch
from flight_server.telemetry import query_digest
from kernels.errors import DeadlineError

log = structlog.get_logger("pgflight.stream")


@dataclass(slots=True)
class Tally:
    """What one read amounts to.

    Parameters
    ----------
    query : str
        Its statement; the log shows a digest.
    timeout_s : float
        Time allowed; 0 for no limit.
    """

    query: str
    timeout_s: float
    started: float = field(default_factory=time.monotonic)
    rows: int = 0
    wire_bytes: int = 0
    outcome: str = "abandoned"
    facts: dict[str, Any] = field(default_factory=dict)
    stages: Stages = field(default_factory=Stages)
    watch: Watch = field(default_factory=lambda: Watch(0.0))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add_wire_bytes(self, count: int) -> None:
        """Add what one of several streams received; from its own thread."""
        with self._lock:
            self.wire_bytes += count

    def require_time(self) -> None:
        """Raise when the read's time is over."""
        if self.timeout_s and time.monotonic() - self.started > self.timeout_s:
            raise DeadlineError(f"the read took longer than {self.timeout_s:g} s")

    def summary(self) -> dict[str, Any]:
        """Return what there is to say."""
        return {
            "outcome": self.outcome,
            "rows": self.rows,
            "wire_bytes": self.wire_bytes,
            "seconds": round(time.monotonic() - self.started, 6),
            "stages": self.stages.facts(),
            **self.facts,
        }

    def log(self) -> None:
        """Write the line, and count the read."""
        metrics.count_read(self.outcome, self.rows, self.wire_bytes, time.monotonic() - self.started)
        log.info("read", query=query_digest(self.query), **self.summary())
