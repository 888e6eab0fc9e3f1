"""What a server holds at a moment, how fast that grows, and whether it has gone back to where it was."""

from __future__ import annotations

import time
import urllib.request
from dataclasses import dataclass

import numpy as np
import psutil
from prometheus_client.parser import text_string_to_metric_families

from demo.postgres import EmbeddedPostgres
from tests.helpers.server import ServerProcess

MIB = 1 << 20
SPARE = 24
"""File descriptors and threads that gRPC may keep for a while."""
DESCRIPTORS_OF_A_CONNECTION = 2


@dataclass(frozen=True)
class Sample:
    """What the server holds."""

    at_s: float
    rss_mib: float
    shared_mib: float
    """Of it, pages of files, and those that clients offer and take back."""
    threads: int
    descriptors: int
    backends: int
    streams: int
    snapshots: int
    lent: int
    """PostgreSQL connections in use."""
    waiting: int

    @property
    def own_mib(self) -> float:
        """Memory that is the server's alone."""
        return self.rss_mib - self.shared_mib


class Sampler:
    """Looks at a server with a side port.

    Parameters
    ----------
    server
    postgres
    """

    def __init__(self, server: ServerProcess, postgres: EmbeddedPostgres) -> None:
        self._process = server.process
        self._postgres = postgres
        self._port = next(line["http_port"] for line in server.log if line.get("event") == "listening")
        self._began = time.monotonic()

    def look(self) -> Sample:
        """Return what is held now."""
        memory, levels = self._process.memory_info(), self._levels()
        return Sample(
            at_s=round(time.monotonic() - self._began, 1),
            rss_mib=round(memory.rss / MIB, 1),
            shared_mib=round(memory.shared / MIB, 1),
            threads=self._process.num_threads(),
            descriptors=self._process.num_fds(),
            backends=self._backends(),
            streams=levels["pgflight_streams_active"],
            snapshots=levels["pgflight_snapshots_held"],
            lent=levels["pgflight_pg_connections_lent"],
            waiting=levels["pgflight_queue_depth"],
        )

    def _backends(self) -> int:
        return sum(" pgflight demo " in _title(child) for child in psutil.Process(self._postgres.pid).children())

    def _levels(self) -> dict[str, int]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=60) as reply:
            text = reply.read().decode()
        return {
            "_".join((sample.name, *sample.labels.values())): int(sample.value)
            for family in text_string_to_metric_families(text)
            if family.type == "gauge"
            for sample in family.samples
        }


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return ""


def slope_mib_per_h(samples: list[Sample], warm_up_s: float) -> float:
    """Return how fast the server's own memory grows after the warm-up, by least squares; NaN with too few samples."""
    late = [(sample.at_s / 3600, sample.own_mib) for sample in samples if sample.at_s >= warm_up_s]
    if len(late) < 3:
        return float("nan")
    hours, mib = zip(*late, strict=True)
    return float(np.polyfit(hours, mib, 1)[0])


def left(base: Sample, now: Sample) -> list[str]:
    """Say what is held now that was not before; idle connections in the pool may stay."""
    found = [
        f"{count} {name}"
        for name, count in (
            ("streams", now.streams), ("snapshots", now.snapshots), ("lent connections", now.lent),
            ("waiting requests", now.waiting),
        )
        if count
    ]  # fmt: skip
    descriptors = now.descriptors - base.descriptors
    descriptors -= DESCRIPTORS_OF_A_CONNECTION * max(0, now.backends - base.backends)
    if descriptors > SPARE:
        found.append(f"{descriptors} file descriptors")
    if now.threads - base.threads > SPARE:
        found.append(f"{now.threads - base.threads} threads")
    return found
