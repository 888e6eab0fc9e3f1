"""The command ``pgflight-server bench``: hands over to the benchmark suite, which a source tree has."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape

SUITE = "benchmark.suite"
NEEDED = ("benchmark", "demo")
HOW = (
    "the benchmark suite is not part of the installed package: get the source tree, and there\n"
    "  make setup && .venv/bin/pip install -e '.[bench]' && .venv/bin/pgflight-server bench"
)


def bench(context: typer.Context) -> None:
    """Measure transports and peers on this machine (needs the source tree); --help lists the options."""
    if any(find_spec(package) is None for package in NEEDED):
        _stop(HOW)
    try:
        suite: Any = importlib.import_module(SUITE)
    except ModuleNotFoundError as missing:
        _stop(f"the benchmark suite needs {missing.name}: pip install -e '.[bench]'")
    suite.app(args=context.args, prog_name="pgflight-server bench")


def _stop(message: str) -> None:
    Console(stderr=True).print(f"[red]error:[/red] {escape(message)}", highlight=False, soft_wrap=True)
    sys.exit(1)
