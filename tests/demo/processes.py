"""Watching processes end."""

import time
from collections.abc import Iterable

import psutil

DEADLINE_S = 60.0


def await_death(pids: Iterable[int]) -> None:
    """Wait until every process is gone, or is only waiting to be reaped."""
    deadline = time.monotonic() + DEADLINE_S
    for pid in pids:
        while runs(pid):
            assert time.monotonic() < deadline, f"process {pid} still runs"
            time.sleep(0.02)


def runs(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def family(pid: int) -> list[int]:
    """The process and all that descend from it."""
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
