"""One contestant in a process of its own: ``python -m benchmark.worker NAME``, a target as JSON on stdin.

Writes one line of JSON to stdout: a `Sample`, or with ``--verify`` the checksums of what was read.
"""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from dataclasses import asdict
from typing import Any

from benchmark.contestants import CHOSEN, CONTESTANTS, COPIED, ENDPOINTS, ON_DEVICE, USED, by_name
from benchmark.measure import measure
from benchmark.target import Drained, Read, Target
from demo.server import ROOT

TIMEOUT_S = 1800.0
VERIFY = "--verify"


class WorkerError(RuntimeError):
    """A contestant failed; the message ends with the error that its process wrote."""


def run(name: str, target: Target, *, verify: bool = False) -> dict[str, Any]:
    """Run a contestant in a new process.

    Returns
    -------
    dict
        The fields of a `Sample`; with `verify`, checksums by column.

    Raises
    ------
    WorkerError
        It failed, or took longer than half an hour.
    """
    command = [sys.executable, "-W", "ignore", "-m", "benchmark.worker", name, *([VERIFY] if verify else [])]
    told = json.dumps(asdict(target))
    try:
        done = subprocess.run(
            command, input=told, capture_output=True, text=True, cwd=ROOT, check=False, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise WorkerError(f"{name}: no end after {TIMEOUT_S:.0f} s") from None
    if done.returncode != 0:
        raise WorkerError(f"{name}: {_cause(done.stderr) or f'exit status {done.returncode}'}")
    written: dict[str, Any] = json.loads(done.stdout)
    return written


def _cause(stderr: str) -> str:
    """Return what stands below the last traceback: the error, on one line."""
    below = stderr.strip().rpartition("Traceback (most recent call last):\n")[2].splitlines()
    return " ".join(line for line in below if line and not line.startswith(" "))


def main(name: str, *flags: str) -> None:
    """Read what stdin names, once to warm up and once for the record."""
    target = Target(**json.loads(sys.stdin.read()))
    read: Read = pkgutil.resolve_name(
        by_name(name, (*CONTESTANTS, ENDPOINTS, CHOSEN, ON_DEVICE, USED, COPIED)).function
    )
    # The first read of a process also loads libraries and compiled code.
    for _ in read(target.warm):
        pass
    written = _checksums(read, target) if VERIFY in flags else asdict(measure(read, target))
    sys.stdout.write(json.dumps(written))


def _checksums(read: Read, target: Target) -> dict[str, str]:
    from benchmark.checksum import Checksums  # noqa: PLC0415 - its libraries are not part of what is measured

    sums = Checksums(target)
    for piece in read(target):
        if not isinstance(piece, Drained):
            sums.add(piece)
    return sums.result()


if __name__ == "__main__":
    main(*sys.argv[1:])
