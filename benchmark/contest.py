"""Everybody reads one table, in turn and again: a warm-up that also compares the values, then the rounds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from benchmark import worker
from benchmark.checksum import differences
from benchmark.contestants import CONTESTANTS, REFERENCE, Contestant
from benchmark.measure import Sample
from benchmark.results import DatasetResult, Entry
from benchmark.target import Target
from benchmark.worker import WorkerError

Progress = Callable[[str], None]
"""Called with a contestant's name before each of its reads."""


class DifferentError(RuntimeError):
    """pgflight's values are not those of the reference: its time means nothing."""


class Contest:
    """The reads of one table by all contestants.

    Parameters
    ----------
    target
        What to read.
    names
        Contestants wanted; none for all.
    progress
    """

    def __init__(self, target: Target, names: Sequence[str], progress: Progress) -> None:
        wanted = [each for each in CONTESTANTS if not names or each.name in names]
        self.absent = {each.name: each.missing for each in wanted if each.missing is not None}
        self.failed: dict[str, str] = {}
        self._installed = [each for each in wanted if each.missing is None]
        self._target = target
        self._progress = progress
        self._samples: dict[str, list[Sample]] = defaultdict(list)
        self._differs: dict[str, list[str]] = {}

    @property
    def running(self) -> list[Contestant]:
        """Who is installed and has not failed."""
        return [each for each in self._installed if each.name not in self.failed]

    def verify(self) -> None:
        """Warm up, and compare what everybody read with what the reference read.

        Raises
        ------
        DifferentError
            pgflight's values differ.
        WorkerError
            A floor, the reference or pgflight failed.
        """
        compared = any(each.name == REFERENCE for each in self.running)
        read = {each.name: self._run(each, verify=compared and each.group != "floor") for each in self.running}
        if REFERENCE not in read:
            return
        for each in self.running:
            if each.group == "floor":
                continue
            self._differs[each.name] = found = differences(read[each.name], read[REFERENCE])
            if found and each.group == "pgflight":
                raise DifferentError(f"{each.name} and {REFERENCE} differ in {', '.join(found)}")

    def round(self) -> None:
        """Let everybody read once."""
        for each in self.running:
            if figures := self._run(each):
                self._samples[each.name].append(Sample(**figures))

    def result(self) -> DatasetResult:
        """Return what has been measured."""
        entries = [self._entry(each) for each in self.running]
        return DatasetResult(self._target.table, self._target.rows, entries, self.absent, self.failed)

    def _run(self, contestant: Contestant, *, verify: bool = False) -> dict[str, Any]:
        """Run a contestant.  A peer's failure is told at the end; it does not end the contest."""
        self._progress(contestant.name)
        through_server = contestant.group == "pgflight"
        target = self._target if through_server else replace(self._target, server_pid=None)
        try:
            return worker.run(contestant.name, target, verify=verify)
        except WorkerError as failure:
            if contestant.group != "peer" or contestant.name == REFERENCE:
                raise
            self.failed[contestant.name] = str(failure)
            return {}

    def _entry(self, contestant: Contestant) -> Entry:
        return Entry(
            name=contestant.name,
            title=contestant.title,
            group=contestant.group,
            streams=self._target.streams if contestant.parallel else 1,
            samples=self._samples[contestant.name],
            differs=self._differs.get(contestant.name),
        )
