"""Runs: a fault at a moment of a read, and what came of it."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil

from tests.torture.faults import FAULTS, Fault
from tests.torture.world import ROWS, TABLE, World

LIMIT_S = 60.0
BEFORE_PLAN, PLANNED, FIRST, MIDDLE, LATE, DRAINING = MOMENTS = (
    "before the plan", "planned", "after the first batch", "in the middle", "near the end", "draining",
)  # fmt: skip
WAIT_AT = {BEFORE_PLAN: "connected", PLANNED: "planned", FIRST: "first", DRAINING: "first"}
COMPLETE, TYPED, CHANGED, KILLED = "complete", "typed error", "changed, as it may", "killed"
BAD = SILENT, UNTYPED, HUNG = "SILENTLY WRONG", "UNTYPED ERROR", "HUNG"


@dataclass
class Cell:
    """All runs of one fault at one moment."""

    fault: str
    moment: str
    outcomes: Counter[str] = field(default_factory=Counter)
    leaks: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """Whether nothing went wrong that must not."""
        return not self.leaks and not any(self.outcomes[name] for name in BAD)


class Torture:
    """Runs cells in a world.

    Parameters
    ----------
    world
    seed
        Of the places where faults happen.
    """

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._random = random.Random(seed)
        self._wanted: Any = None
        self._wire_bytes = 0

    def run(self, runs: int, faults: Sequence[Fault] = FAULTS, moments: Sequence[str] = MOMENTS) -> Iterator[Cell]:
        """Yield each cell when its runs are over."""
        self._world.mend()
        self._world.leaks()  # the base
        before = self._world.link.sent
        self._wanted = self._read(None, "", random.Random(0))["found"]
        self._wire_bytes = self._world.link.sent - before
        if self._wanted["rows"] != ROWS:
            raise AssertionError(f"an undisturbed read gave {self._wanted['rows']} rows")
        for fault in faults:
            for moment in moments:
                cell = Cell(fault.name, moment)
                for _ in range(runs):
                    self._once(fault, moment, cell)
                yield cell

    def _once(self, fault: Fault, moment: str, cell: Cell) -> None:
        said = self._read(fault, moment, self._random)
        outcome = self._judge(fault, said)
        cell.outcomes[outcome] += 1
        if outcome in BAD:
            cell.notes.append(json.dumps(said))
        if moment == DRAINING and not self._world.ends():
            cell.leaks["the server did not stop in time"] += 1
        self._world.mend()
        for leak in self._world.leaks():
            cell.leaks[leak] += 1

    def _judge(self, fault: Fault, said: dict[str, Any]) -> str:
        if said["moment"] == "hung":
            return HUNG
        if said["moment"] == "gone":
            return KILLED if fault.kills_client else UNTYPED
        if said["moment"] == "failed":
            typed = any(kind.startswith(("Flight", "Arrow")) for kind in said["kinds"])
            return TYPED if typed and "Traceback" not in said["text"] else UNTYPED
        if said["found"] == self._wanted:
            return COMPLETE
        return CHANGED if fault.may_change_values and said["found"]["rows"] == ROWS else SILENT

    def _read(self, fault: Fault | None, moment: str, source: random.Random) -> dict[str, Any]:
        """Read with a fault; return the last thing that the client said."""
        world = self._world
        streams, share = source.choice(("1", "2", "4")), source.choice(("yes", "no"))
        command = [
            sys.executable, "-m", "tests.torture.reader", world.uri, TABLE, streams, share, WAIT_AT.get(moment, ""),
        ]  # fmt: skip
        client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        process = psutil.Process(client.pid)
        timer = threading.Timer(LIMIT_S, client.kill)
        timer.start()
        try:
            with client:
                if fault is not None and moment in (MIDDLE, LATE):
                    share_of = source.uniform(0.02, 0.9) if moment == MIDDLE else source.uniform(0.98, 1.0)
                    world.link.at(int(self._wire_bytes * share_of), lambda: fault.inject(world, process))
                last = {"moment": "gone"}
                for line in client.stdout or ():
                    last = json.loads(line)
                    if fault is not None and last["moment"] == WAIT_AT.get(moment):
                        if moment == DRAINING:
                            world.server.signal(signal.SIGTERM)
                        fault.inject(world, process)
                        self._go_on(client)
            if client.returncode and not (fault and fault.kills_client):
                return {"moment": "hung" if timer.finished.is_set() else "gone"}
            return last if last["moment"] in ("done", "failed") else {"moment": "gone"}
        finally:
            timer.cancel()

    def _go_on(self, client: subprocess.Popen[str]) -> None:
        try:
            assert client.stdin is not None
            client.stdin.write("\n")
            client.stdin.flush()
        except BrokenPipeError:  # the fault was its end
            return
