"""``python -m tests.torture.memory``: 500 clients, 1 GiB; exit status 1 if the server did not bear it, 2 without groups."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from tests.torture.memory.cgroup import NoCgroupError
from tests.torture.memory.run import run


def main(
    clients: Annotated[int, typer.Option(min=5, help="In five processes.")] = 500,
    seconds: Annotated[float, typer.Option(help="For how long they come again.")] = 60.0,
    limit_mib: Annotated[int, typer.Option(min=256, help="The server's limit.")] = 1024,
) -> None:
    """Let greedy clients read from a server with a limit on its memory."""
    console = Console(highlight=False)
    try:
        report = run(clients, seconds, limit_mib << 20)
    except NoCgroupError as failure:
        console.print(str(failure))
        raise typer.Exit(2) from None
    console.print(
        f"{clients} clients: {report.outcomes['complete']} reads whole, {report.outcomes['refused']} refused; "
        f"peak {report.peak_bytes >> 20} MiB of {limit_mib}, {report.kills} kills"
    )
    console.print(*report.problems, sep="\n", markup=False)
    raise typer.Exit(1 if report.problems else 0)


if __name__ == "__main__":
    typer.run(main)
