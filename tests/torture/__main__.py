"""``python -m tests.torture``: fault matrix, overload and wire fuzz, with one scoreboard; exit status 1 if anything must not be."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tests.torture.faults import FAULTS, Fault
from tests.torture.fuzz_wire.__main__ import broken
from tests.torture.fuzz_wire.__main__ import show as show_fuzz
from tests.torture.matrix import MOMENTS, Cell, Torture
from tests.torture.overload.report import run as overload
from tests.torture.overload.report import show as show_overload
from tests.torture.world import world


def main(
    runs: Annotated[int, typer.Option(min=1, help="Runs of each cell of the matrix.")] = 1,
    only: Annotated[list[str] | None, typer.Option(help="Part of a fault's name; repeatable.")] = None,
    calls: Annotated[int, typer.Option(min=1, help="Calls of each kind to a full server.")] = 100,
    shutdowns: Annotated[int, typer.Option(min=1, help="Servers that are told to stop.")] = 8,
    payloads: Annotated[int, typer.Option(min=1, help="Broken payloads for the parsers.")] = 200_000,
    sent: Annotated[int, typer.Option(min=1, help="And for a server.")] = 1_000,
    seed: Annotated[int, typer.Option(help="Of all that is left to chance.")] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the matrix to this file.")] = None,
) -> None:
    """Read again and again while something goes wrong, call a full server, send what is broken."""
    console = Console(highlight=False)
    faults = [fault for fault in FAULTS if only is None or any(part in fault.name for part in only)]
    cells = list(_matrix(faults, runs, seed, console))
    pressed = overload(calls, shutdowns)
    fuzzed = broken(payloads, sent, seed, os.cpu_count() or 1)
    _show(faults, cells, console)
    show_overload(pressed, console)
    show_fuzz(*fuzzed, console)
    if json_file is not None:
        json_file.write_text(json.dumps([vars(cell) for cell in cells], indent=1))
    bad = [cell for cell in cells if not cell.is_sound]
    console.print(
        f"{sum(cell.outcomes.total() for cell in cells)} runs, {len(bad)} cells with something wrong; "
        f"{len(pressed.problems)} bounds broken; {sum(len(found.bad) for found in fuzzed)} bad answers"
    )
    raise typer.Exit(1 if bad or pressed.problems or any(found.bad for found in fuzzed) else 0)


def _matrix(faults: list[Fault], runs: int, seed: int, console: Console) -> Iterator[Cell]:
    with world() as made:
        for cell in Torture(made, seed).run(runs, faults):
            told = ", ".join(f"{name} {count}" for name, count in [*cell.outcomes.items(), *cell.leaks.items()])
            console.print(f"{cell.fault}, {cell.moment}: {told}", *cell.notes)
            yield cell


def _show(faults: list[Fault], cells: list[Cell], console: Console) -> None:
    table = Table("fault", *MOMENTS)
    for fault in faults:
        table.add_row(fault.name, *(_shown(cell) for cell in cells if cell.fault == fault.name))
    console.print(table)


def _shown(cell: Cell) -> str:
    lines = [f"{name} {count}" for name, count in cell.outcomes.items()]
    return "\n".join([*lines, *(f"LEAK {name} {count}" for name, count in cell.leaks.items())])


if __name__ == "__main__":
    typer.run(main)
