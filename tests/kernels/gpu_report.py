"""Prove the CUDA twin on a GPU and print a short table: ``python -m tests.kernels.gpu_report [pytest's arguments]``.

All tests of this directory decode on the device, then fuzzers do; the exit status is 0 if nothing failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
HOST_ONLY = ("test_fuzz.py", "test_cuda_simulator.py")
FUZZERS = {"replies": ("tests.kernels.fuzz_replies", "5000", "11", "0", "cuda")}
FUZZ_LIMIT_S = 480


class Tally:
    """Counts outcomes and seconds by file, as a plugin of pytest."""

    def __init__(self) -> None:
        self.counts: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a phase of a test."""
        counts = self.counts[Path(report.fspath).name]
        counts["seconds"] += report.duration
        if report.when == "call" or report.outcome != "passed":
            counts[report.outcome] += 1

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Count a file that cannot be read, or is skipped whole."""
        if report.outcome != "passed":
            self.counts[Path(report.fspath).name][report.outcome] += 1


def fuzz(arguments: tuple[str, ...]) -> tuple[float, bool]:
    """Run a fuzzer; return seconds and whether it found nothing."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=HERE.parents[1],
        timeout=FUZZ_LIMIT_S,
        check=False,
        stdout=subprocess.PIPE,
    )
    if done.returncode:
        sys.stdout.buffer.write(done.stdout[-4000:])
    return time.monotonic() - started, done.returncode == 0


def main(arguments: list[str]) -> int:
    """Run everything; return the exit status."""
    os.environ["PGFLIGHT_TEST_TWIN"] = "cuda"
    tally = Tally()
    ignored = [f"--ignore={HERE / name}" for name in HOST_ONLY]
    status = int(pytest.main(["-q", "--tb=short", *ignored, *(arguments or [str(HERE)])], plugins=[tally]))
    table = Table("what", "passed", "failed", "skipped", "seconds", title="the CUDA twin")
    for name, counts in sorted(tally.counts.items()):
        outcomes = [f"{counts[outcome]:.0f}" for outcome in ("passed", "failed", "skipped")]
        table.add_row(name, *outcomes, f"{counts['seconds']:.1f}")
    for name, program in () if arguments else FUZZERS.items():
        seconds, sound = fuzz(program)
        table.add_row(f"fuzz: {program[1]} {name}", *(("1", "0") if sound else ("0", "1")), "0", f"{seconds:.1f}")
        status = status or int(not sound)
    Console().print(table)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
