"""One read, measured: wall and CPU seconds, memory, time to the first piece; client and server apart."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmark.target import Drained, Read, Target


class IncompleteError(RuntimeError):
    """A read ended early: its time means nothing."""


@dataclass(frozen=True)
class Sample:
    """What one read took, from connecting to the end of the last piece.

    Attributes
    ----------
    seconds, first_seconds
        Wall time; until the end, and until the first piece.
    client_cpu_s, server_cpu_s
        CPU time, user and system, of the reading process, its children included, and of the pgflight server (None:
        not in use).
    client_peak_bytes, server_peak_bytes
        Largest resident memory during the read.
    client_base_bytes, server_base_bytes
        Resident memory just before it: the interpreter and its libraries.
    rows
        Rows that arrived.
    wire_bytes
        Bytes received from PostgreSQL, where they were counted (floors), else 0.
    """

    seconds: float
    first_seconds: float
    client_cpu_s: float
    server_cpu_s: float | None
    client_peak_bytes: int
    server_peak_bytes: int | None
    client_base_bytes: int
    server_base_bytes: int | None
    rows: int
    wire_bytes: int


def measure(read: Read, target: Target) -> Sample:
    """Read everything, drop it piece by piece, and say what it took.

    Raises
    ------
    IncompleteError
        Another number of rows arrived than the table has.
    """
    server = None if target.server_pid is None else Meter(target.server_pid)
    client = Meter(None)
    rows = wire_bytes = 0
    first_seconds = None
    started = time.perf_counter()
    for piece in read(target):
        if first_seconds is None:
            first_seconds = time.perf_counter() - started
        rows += piece.num_rows
        wire_bytes += piece.wire_bytes if isinstance(piece, Drained) else 0
    seconds = time.perf_counter() - started
    if rows != target.rows:
        raise IncompleteError(f"{rows} rows of {target.table} arrived, not {target.rows}")
    return Sample(
        seconds=seconds,
        first_seconds=first_seconds if first_seconds is not None else seconds,
        client_cpu_s=client.cpu_s(),
        server_cpu_s=None if server is None else server.cpu_s(),
        client_peak_bytes=client.peak_bytes(),
        server_peak_bytes=None if server is None else server.peak_bytes(),
        client_base_bytes=client.base_bytes,
        server_base_bytes=None if server is None else server.base_bytes,
        rows=rows,
        wire_bytes=wire_bytes,
    )


class Meter:
    """CPU time and memory of a process from now on.

    Parameters
    ----------
    pid
        None for this process, whose CPU time is known to the microsecond; it includes that of children, to the
        tick (0.01 s) while they live.
    """

    def __init__(self, pid: int | None) -> None:
        self._process = psutil.Process(pid)
        self._own = pid is None
        self._proc = Path(f"/proc/{self._process.pid}")
        if (self._proc / "clear_refs").exists():  # not in every sandbox
            (self._proc / "clear_refs").write_text("5")  # proc(5): reset the peak to what is resident now
        self.base_bytes: int = self._process.memory_info().rss
        self._cpu_s = self._total_cpu_s()

    def cpu_s(self) -> float:
        """CPU seconds since the start, user and system."""
        return self._total_cpu_s() - self._cpu_s

    def peak_bytes(self) -> int:
        """The most resident memory since the start; what is resident now where the system does not say."""
        status = (self._proc / "status").read_text()
        peaks = [int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM:")]
        return peaks[0] if peaks else int(self._process.memory_info().rss)

    def _total_cpu_s(self) -> float:
        if not self._own:
            times = self._process.cpu_times()
            return float(times.user + times.system)
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        living = [child.cpu_times() for child in self._process.children()]
        return sum(usage.ru_utime + usage.ru_stime for usage in usages) + sum(
            float(times.user + times.system) for times in living
        )
