"""``python -m tests.torture``: the fault matrix, with a scoreboard; exit status 1 if anything must not be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tests.torture.faults import FAULTS
from tests.torture.matrix import MOMENTS, Cell, Torture
from tests.torture.world import world


def main(
    runs: Annotated[int, typer.Option(min=1, help="Runs of each cell.")] = 1,
    only: Annotated[list[str] | None, typer.Option(help="Part of a fault's name; repeatable.")] = None,
    seed: Annotated[int, typer.Option(help="Of the places where faults happen.")] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the outcomes to this file.")] = None,
) -> None:
    """Read again and again while something goes wrong, and look at what comes of it."""
    console = Console(highlight=False)
    faults = [fault for fault in FAULTS if only is None or any(part in fault.name for part in only)]
    cells: list[Cell] = []
    with world() as made:
        for cell in Torture(made, seed).run(runs, faults):
            cells.append(cell)
            told = ", ".join(f"{name} {count}" for name, count in [*cell.outcomes.items(), *cell.leaks.items()])
            console.print(f"{cell.fault}, {cell.moment}: {told}", *cell.notes)
    table = Table("fault", *MOMENTS)
    for fault in faults:
        row = [cell for cell in cells if cell.fault == fault.name]
        table.add_row(fault.name, *(_shown(cell) for cell in row))
    console.print(table)
    if json_file is not None:
        json_file.write_text(json.dumps([vars(cell) for cell in cells], indent=1))
    bad = [cell for cell in cells if not cell.is_sound]
    console.print(
        f"{sum(sum(cell.outcomes.values()) for cell in cells)} runs, {len(bad)} cells with something wrong"
    )
    raise typer.Exit(1 if bad else 0)


def _shown(cell: Cell) -> str:
    lines = [f"{name} {count}" for name, count in cell.outcomes.items()]
    return "\n".join([*lines, *(f"LEAK {name} {count}" for name, count in cell.leaks.items())])


if __name__ == "__main__":
    typer.run(main)
