"""``python -m tests.torture.fuzz_wire``: broken payloads by the million; exit status 1 for any bad answer."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tests.torture.fuzz_wire.live import assault, fuzzed_server
from tests.torture.fuzz_wire.run import Findings, fuzz


def main(
    count: Annotated[int, typer.Option(help="Payloads for the parsers, in this process.")] = 1_000_000,
    live: Annotated[int, typer.Option(help="Payloads for a server, over gRPC.")] = 5_000,
    seed: Annotated[int, typer.Option()] = 1,
    processes: Annotated[int, typer.Option()] = os.cpu_count() or 1,
) -> None:
    """Break tickets, descriptors, messages, actions and headers, and see what the server makes of them."""
    console = Console(highlight=False)
    parsed, sent = broken(count, live, seed, processes)
    show(parsed, sent, console)
    raise typer.Exit(1 if parsed.bad or sent.bad else 0)


def broken(count: int, live: int, seed: int, processes: int) -> tuple[Findings, Findings]:
    """Give broken payloads to the parsers, and to a server."""
    parsed = fuzz(count, seed, processes)
    with fuzzed_server() as server:
        return parsed, assault(server, live, seed)


def show(parsed: Findings, sent: Findings, console: Console) -> None:
    """Print what came of it."""
    table = Table("payloads", "taken apart here", "sent to a server")
    for name in sorted(parsed.kinds | sent.kinds):
        table.add_row(name, f"{parsed.kinds[name]:,}", f"{sent.kinds[name]:,}")
    table.add_row("all", f"{parsed.kinds.total():,}", f"{sent.kinds.total():,}")
    table.add_row("answered with an error", f"{_refused(parsed):,}", f"{_refused(sent):,}")
    table.add_row("answered otherwise", str(len(parsed.bad)), str(len(sent.bad)))
    console.print(table)
    for what, payload in (parsed.bad | sent.bad).items():
        console.print(what, payload, sep="\n    ", markup=False)


def _refused(found: Findings) -> int:
    return found.kinds.total() - found.outcomes["sound"]


if __name__ == "__main__":
    typer.run(main)
