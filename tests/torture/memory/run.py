"""Runs the clients against a server in a control group; says what must not be."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from demo.postgres import EmbeddedPostgres
from tests.helpers.server import ServerProcess
from tests.torture.memory.cgroup import memory_group

LIMIT_BYTES = 1 << 30
PROCESSES = 5
PATIENCE_S = 240.0
FLAGS = ("--connection-wait-s", "5", "--stall-timeout-s", "10")
"""Memory, connections and the queue are as they come."""


@dataclass
class Report:
    """What came of it."""

    limit_bytes: int
    peak_bytes: int = 0
    kills: int = 0
    status: int | None = None
    """The server's exit status; None while it still ran in the end."""
    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def problems(self) -> list[str]:
        """What must not be."""
        found = [
            f"{count} times: {name}"
            for name, count in self.outcomes.items()
            if name not in ("complete", "refused")
        ]
        if self.kills or self.status is not None:
            found.append(f"the server ended with {self.status}, {self.kills} kills for want of memory")
        if not self.outcomes["complete"]:
            found.append("nothing was read")
        return found


def run(clients: int, seconds: float, limit_bytes: int = LIMIT_BYTES) -> Report:
    """Let clients read from a server that may use so much memory.

    Raises
    ------
    NoCgroupError
    """
    report = Report(limit_bytes)
    with (
        memory_group(limit_bytes) as group,
        tempfile.TemporaryDirectory() as scratch,
        EmbeddedPostgres.start() as postgres,
        ServerProcess(postgres.dsn(), *FLAGS, program=group.program(Path(scratch))) as server,
    ):
        processes = [_start(server.uri, clients // PROCESSES, seconds, seed) for seed in range(PROCESSES)]
        for process in processes:
            told, _ = process.communicate(timeout=seconds + PATIENCE_S)
            report.outcomes.update(json.loads(told))
        report.status = server.returncode
        report.peak_bytes, report.kills = group.peak_bytes, group.kills
    return report


def _start(uri: str, clients: int, seconds: float, seed: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.torture.memory.clients", uri, str(clients), str(seconds), str(seed)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
