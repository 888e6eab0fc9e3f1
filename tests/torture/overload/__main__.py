"""``python -m tests.torture.overload``: a full server and its end, in a table; exit status 1 if a bound is broken."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from tests.torture.overload.report import run, show


def main(
    calls: Annotated[int, typer.Option(min=1, help="Calls of each kind while the server is full.")] = 200,
    shutdowns: Annotated[int, typer.Option(min=1, help="Servers that are told to stop.")] = 100,
) -> None:
    """Fill a server and call it; then start servers and stop them."""
    report = run(calls, shutdowns)
    show(report, Console(highlight=False))
    raise typer.Exit(1 if report.problems else 0)


if __name__ == "__main__":
    typer.run(main)
