"""``python -m tests.torture.soak``: hours of mixed work, with a verdict; exit status 1 if anything must not be."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tests.torture.soak.run import JUDGED_S, Plan, Report, soak


def main(
    hours: Annotated[float, typer.Option(min=0.001, help="How long; for 24 h give 24.")] = 2.0,
    clients: Annotated[int, typer.Option(min=1)] = 64,
    processes: Annotated[int, typer.Option(min=1, help="Of the clients.")] = 8,
    hurt_every_s: Annotated[
        float, typer.Option(help="How often a process of clients is killed or stopped.")
    ] = 20.0,
    seed: Annotated[int, typer.Option()] = 1,
    json_file: Annotated[Path, typer.Option("--json", help="Samples and outcomes go here, all the while.")] = Path(
        "soak.json"
    ),
) -> None:
    """Let clients work, cancel, stall and die for hours, and watch what the server holds."""
    console = Console(highlight=False)

    def told(report: Report) -> None:
        json_file.write_text(report.to_json())
        now = report.samples[-1]
        console.print(
            f"{now.at_s:.0f} s: {now.rss_mib:.0f} MiB, own {now.own_mib:.0f}, {now.threads} threads, {now.descriptors} descriptors, "
            f"{now.backends} backends, {now.streams} streams; {report.done.total()} done, {len(report.wrong)} wrong"
        )

    plan = Plan(hours * 3600, clients, min(processes, clients), hurt_every_s, seed=seed)
    report = soak(plan, on_sample=told)
    json_file.write_text(report.to_json())
    show(report, console)
    raise typer.Exit(1 if report.problems else 0)


def show(report: Report, console: Console) -> None:
    """Print what came of a soak."""
    table = Table("work", "pieces", "share")
    for name, count in sorted(report.done.items()):
        table.add_row(name, str(count), f"{100 * count / report.done.total():.1f} %")
    console.print(table)
    judged = "" if report.plan.seconds >= JUDGED_S else " (too short to judge)"
    console.print(f"memory after the warm-up: {report.slope_mib_per_h:+.2f} MiB/h{judged}")
    console.print(*(report.problems or ["sound: everything whole, nothing left"]), sep="\n")


if __name__ == "__main__":
    typer.run(main)
