"""Where and with what a benchmark ran: without it a figure means nothing."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psutil
import psycopg

from demo.server import ROOT

PACKAGES = (
    "pyarrow", "numba", "numpy", "psycopg", "adbc-driver-postgresql", "adbc-driver-manager", "connectorx", "duckdb",
)  # fmt: skip
SETTINGS_SQL = "SELECT current_setting('server_version'), current_setting('shared_buffers')"


def describe(dsn: str) -> dict[str, Any]:
    """Return the machine, the versions of everything that is measured, and the date."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute(SETTINGS_SQL).fetchone() or (None, None)
    return machine() | {"postgresql": row[0], "shared_buffers": row[1]}


def machine() -> dict[str, Any]:
    """Return the same without PostgreSQL."""
    return {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / (1 << 30), 1),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "libpq": psycopg.pq.version(),
        "commit": _commit(),
        "packages": {name: version for name in PACKAGES if (version := _version(name)) is not None},
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return " ".join(value.split())
    return platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the commit of a checkout, with a + where files differ from it."""
    git = shutil.which("git")
    if git is None:
        return None
    command = [git, "describe", "--always", "--dirty=+", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    return done.stdout.strip() or None
