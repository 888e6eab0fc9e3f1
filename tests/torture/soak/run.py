"""Runs the soak: processes of clients, of which one is now and then killed or stopped, and samples of the server."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from typing import IO, Any

import psutil

from demo.postgres import EmbeddedPostgres
from tests.helpers.server import ServerProcess
from tests.torture.soak.data import Part, fill
from tests.torture.soak.samples import Sample, Sampler, left, slope_mib_per_h

SLOPE_MIB_PER_H = 1.0
JUDGED_S = 1800.0
"""A shorter soak says nothing about megabytes an hour."""
WARM_UP_SHARE = 0.25
SETTLE_S = 30.0
STALL_TIMEOUT_S = 5.0
STALL_S = STALL_TIMEOUT_S + 3
FLAGS = (
    "--allow-writes", "--http-listen", "0", "--stall-timeout-s", str(STALL_TIMEOUT_S), "--connection-wait-s", "120",
    "--transaction-idle-s", "20", "--memory-mib", "256",
)  # fmt: skip
"""Little memory, so that what is kept for reuse has reached its bound when the warm-up is over."""


@dataclass(frozen=True)
class Plan:
    """How long, by how many, and how often somebody is hurt; longer where fewer pieces of work than `least` are done."""

    seconds: float
    clients: int = 64
    processes: int = 8
    hurt_every_s: float = 20.0
    sample_every_s: float = 10.0
    seed: int = 1
    least: int = 0


@dataclass
class Report:
    """What came of it."""

    plan: Plan
    base: Sample
    samples: list[Sample] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    slope_mib_per_h: float = math.nan

    @property
    def problems(self) -> list[str]:
        """What must not be."""
        found = [*self.wrong[:20], *(f"left behind: {what}" for what in self.left)]
        if not any(name.endswith(": complete") for name in self.done):
            found.append("nothing was read")
        if self.plan.seconds >= JUDGED_S and not self.slope_mib_per_h < SLOPE_MIB_PER_H:
            found.append(f"memory grows by {self.slope_mib_per_h:.2f} MiB/h")
        return found

    def to_json(self) -> str:
        """Return everything."""
        return json.dumps({**vars(self), "problems": self.problems}, default=asdict, indent=1)


class Group:
    """A process of clients, followed.

    Parameters
    ----------
    uri, parts, clients, seed
        Of the clients.
    report
        Is told what they did.
    """

    def __init__(self, uri: str, parts: list[Part], clients: int, seed: int, report: Report) -> None:
        told = json.dumps([(part.first, part.last, part.digest) for part in parts])
        command = [
            sys.executable,
            "-m",
            "tests.torture.soak.clients",
            uri,
            told,
            str(clients),
            str(seed),
            str(STALL_S),
        ]
        self._report = report
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self._follower = threading.Thread(target=self._follow, args=(self.process.stdout,), daemon=True)
        self._follower.start()

    def kill(self) -> None:
        """Kill it, with all that it reads."""
        self.process.kill()
        self.end()

    def end(self) -> None:
        """Let it finish what it does, and bury it."""
        with suppress(BrokenPipeError):
            assert self.process.stdin is not None
            self.process.stdin.close()
        self.process.wait()
        self._follower.join()

    def _follow(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                with suppress(json.JSONDecodeError):  # cut in two by a kill
                    said: dict[str, Any] = json.loads(line)
                    self._report.done.update(said["done"])
                    self._report.wrong.extend(said["wrong"])


def soak(plan: Plan, *, on_sample: Callable[[Report], None] = lambda _: None) -> Report:
    """Soak a server of its own; return the report."""
    with ExitStack() as stack:
        postgres = stack.enter_context(EmbeddedPostgres.start())
        with postgres.connect() as connection:
            parts = fill(connection)
        server = stack.enter_context(ServerProcess(postgres.dsn(), *FLAGS))
        sampler = Sampler(server, postgres)
        report = Report(plan, sampler.look())
        groups: list[Group] = []
        seeds = iter(range(plan.seed * 1_000_000, 1 << 62))

        def start() -> None:
            groups.append(Group(server.uri, parts, plan.clients // plan.processes, next(seeds), report))

        for _ in range(plan.processes):
            start()
        try:
            _go_on(report, groups, start, lambda: _note(report, sampler, server, on_sample))
        finally:
            for group in groups:
                psutil.Process(group.process.pid).resume()
                group.end()
        report.slope_mib_per_h = slope_mib_per_h(report.samples, plan.seconds * WARM_UP_SHARE)
        report.left = _settled(report.base, sampler, postgres)
    return report


def _go_on(report: Report, groups: list[Group], start: Callable[[], None], note: Callable[[], None]) -> None:
    """Sample, and hurt one process after another: killed, or stopped for longer than the server bears it."""
    plan = report.plan
    source = random.Random(plan.seed)
    began = time.monotonic()
    next_sample, next_hurt, resume_at = began, began + plan.hurt_every_s, math.inf
    stopped: psutil.Process | None = None
    kills = 0
    while (now := time.monotonic()) < began + plan.seconds or _whole(report) < plan.least:
        if now >= next_sample:
            next_sample += plan.sample_every_s
            note()
        if stopped and now >= resume_at:
            stopped.resume()
            stopped = None
        if now >= next_hurt and stopped is None:
            next_hurt = now + plan.hurt_every_s
            victim = source.choice(groups)
            kills += 1
            if kills % 2:
                groups.remove(victim)
                victim.kill()
                start()
            else:
                stopped, resume_at = psutil.Process(victim.process.pid), now + STALL_S
                stopped.suspend()
        time.sleep(max(0.02, min(next_sample, next_hurt, resume_at, began + plan.seconds) - time.monotonic()))


def _whole(report: Report) -> int:
    return sum(count for name, count in report.done.items() if name.endswith(": complete"))


def _note(report: Report, sampler: Sampler, server: ServerProcess, on_sample: Callable[[Report], None]) -> None:
    report.samples.append(sampler.look())
    lines, server.log[:] = list(server.log), []
    server.forget()
    report.wrong.extend(json.dumps(line)[:2000] for line in lines if line.get("level") in (None, "error"))
    on_sample(report)


def _settled(base: Sample, sampler: Sampler, postgres: EmbeddedPostgres) -> list[str]:
    """Say what is left when all clients have gone and the server has had time."""
    end = time.monotonic() + SETTLE_S
    while found := left(base, sampler.look()) + _temporary(postgres):
        if time.monotonic() > end:
            return found
        time.sleep(0.2)
    return []


def _temporary(postgres: EmbeddedPostgres) -> list[str]:
    with postgres.connect() as connection:
        query = "select relname from pg_class where relpersistence = 't' and relkind = 'r'"
        return [f"temporary table {name}" for (name,) in connection.execute(query)]
