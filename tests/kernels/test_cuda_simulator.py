"""The tests of the CUDA twin without a device: in Numba's simulator.

It is chosen when Numba is imported, so they run in processes of their own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REPLIES = 40
LIMIT_S = 400
pytestmark = pytest.mark.timeout(LIMIT_S)
TAIL = 4000
SUITES = {"test_cuda_scan.py": 80, "test_cuda_decode.py": 100, "test_cuda_nested.py": 60}
"""Tests that must have passed, at least: a suite that was skipped proves nothing."""


def simulate(*command: str) -> str:
    """Run Python in the simulator; return what it printed."""
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1"}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S - 10,
        check=False,
    )
    assert done.returncode == 0, f"rc {done.returncode}\n{done.stdout[-TAIL:]}\n{done.stderr[-TAIL:]}"
    return done.stdout


@pytest.mark.parametrize("suite", SUITES)
def test_suite(suite: str) -> None:
    printed = simulate(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout", str(LIMIT_S), f"tests/kernels/{suite}"
    )
    passed = re.search(r"(\d+) passed", printed)
    assert passed is not None
    assert int(passed[1]) >= SUITES[suite], printed[-TAIL:]


def test_broken_replies() -> None:
    """Whole replies with all kinds of damage, in blocks of all sizes, against the oracle."""
    assert "accepted" in simulate(
        "-W", "error", "-m", "tests.kernels.fuzz_replies", str(REPLIES), "5", "0", "cuda"
    )
