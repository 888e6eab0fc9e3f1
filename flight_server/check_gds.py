"""The command ``pgflight-server check-gds``."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from kernels.errors import ConfigError, PgflightError
from transport import direct_io
from transport.device import gds
from transport.device.cuda import cuda
from transport.device.gds import Verdict
from transport.direct_io import Rate

MIB = 1 << 20


def check_gds(
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Where the spool is, or will be; by default the temporary files'.")
    ] = None,
    size_mib: Annotated[int, typer.Option(min=4, help="Size of the file that is written and read.")] = 1024,
    gpu: Annotated[int, typer.Option(min=0, help="Which GPU.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Tell whether GPUDirect Storage is real here, why not, what is done instead, and what the disk gives."""
    place = directory or Path(tempfile.gettempdir())
    notes: list[str] = []
    try:
        verdict = gds.look(place)
        rates = direct_io.measure(place, size_mib * MIB)
        try:
            rates += gds.measure(cuda(), gpu, place, size_mib * MIB)
        except ConfigError as failure:
            notes.append(f"GPU memory was not measured: {failure}")
    except PgflightError as failure:
        Console(stderr=True).print(f"[red]error:[/red] {failure}", highlight=False, soft_wrap=True)
        sys.exit(1)
    if as_json:
        typer.echo(json.dumps(_json(place, verdict, rates, notes), indent=2))
    else:
        _show(place, verdict, rates, notes)


def _json(place: Path, verdict: Verdict, rates: list[Rate], notes: list[str]) -> dict[str, object]:
    return {
        "directory": str(place),
        "real": verdict.real,
        "falls_back_to": verdict.falls_back_to,
        "findings": [asdict(finding) for finding in verdict.findings],
        "rates": [asdict(rate) | {"gb_per_s": rate.gb_per_s} for rate in rates],
        "notes": notes,
    }


def _show(place: Path, verdict: Verdict, rates: list[Rate], notes: list[str]) -> None:
    console = Console(highlight=False)
    console.print(f"GPUDirect Storage for {place}: [bold]{'yes' if verdict.real else 'no'}[/bold]", soft_wrap=True)
    table = Table(show_header=False, box=None, padding=(0, 2))
    for finding in verdict.findings:
        remedy = "" if finding.there else finding.remedy
        table.add_row(finding.name, "[green]yes[/]" if finding.there else "[yellow]no[/]", finding.seen, remedy)
    console.print(table)
    console.print(f"what is done instead: {verdict.falls_back_to}", soft_wrap=True)
    speeds = Table(show_header=False, box=None, padding=(0, 2))
    for rate in rates:
        speeds.add_row(rate.name, f"{rate.gb_per_s:.2f} GB/s")
    console.print(speeds)
    for note in notes:
        console.print(note, soft_wrap=True)
