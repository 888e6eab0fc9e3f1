"""A control group with a limit on memory, as containers have one."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.waiting import eventually

ROOT = Path("/sys/fs/cgroup")
NEEDED = (
    "a memory control group cannot be made ({}): run as root where /sys/fs/cgroup is writable, or in a container "
    "with a limit of its own; prlimit is no substitute, for it limits addresses, not memory"
)


class NoCgroupError(RuntimeError):
    """Control groups cannot be made here."""


@dataclass(frozen=True)
class Files:
    """What the files of one version of control groups are called."""

    parent: Path
    limit: str
    peak: str
    events: str


VERSIONS = (
    Files(ROOT, "memory.max", "memory.peak", "memory.events"),
    Files(ROOT / "memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control"),
)


@dataclass(frozen=True)
class MemoryGroup:
    """A group that processes can be started in."""

    directory: Path
    files: Files

    @property
    def peak_bytes(self) -> int:
        """The most that was ever in use, files in the page cache included."""
        return int((self.directory / self.files.peak).read_text())

    @property
    def kills(self) -> int:
        """Processes that were killed for want of memory."""
        lines = (self.directory / self.files.events).read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))

    def program(self, where: Path) -> Path:
        """Write a command that runs a pgflight server in this group."""
        path = where / "pgflight-in-group"
        path.write_text(
            f'#!/bin/sh\necho $$ > {self.directory}/cgroup.procs && exec {sys.executable} -m flight_server "$@"\n'
        )
        path.chmod(0o755)
        return path


@contextmanager
def memory_group(limit_bytes: int) -> Iterator[MemoryGroup]:
    """Make a group; whoever is in it must have ended when the context does.

    Raises
    ------
    NoCgroupError
    """
    files = next((version for version in VERSIONS if _has_memory(version)), None)
    if files is None:
        raise NoCgroupError(NEEDED.format("there is no memory controller"))
    directory = files.parent / f"pgflight-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        directory.mkdir()
        (directory / files.limit).write_text(str(limit_bytes))
    except OSError as failure:
        if directory.exists():
            directory.rmdir()
        raise NoCgroupError(NEEDED.format(failure.strerror)) from failure
    try:
        yield MemoryGroup(directory, files)
    finally:
        eventually(lambda: not (directory / "cgroup.procs").read_text())
        directory.rmdir()


def _has_memory(files: Files) -> bool:
    if files.parent == ROOT:
        enabled = ROOT / "cgroup.subtree_control"
        return enabled.exists() and "memory" in enabled.read_text().split()
    return (files.parent / files.limit).exists()
