"""The command ``pgflight-server export``."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Annotated, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from flight_server.config import load
from flight_server.export.manifest import Manifest
from flight_server.export.planning import TablePlan
from flight_server.export.run import Export, ExportOptions
from flight_server.telemetry import configure_logging
from kernels.errors import PgflightError

INTERRUPTED = 130


class Bars:
    """A bar for every table, on the terminal's standard error."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.completed:,.0f} rows"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._console = console
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def planned(self, tables: list[TablePlan], manifest: Manifest) -> None:
        """Show all tables; what is there already counts."""
        for table in tables:
            there = manifest.tables[table.name].rows
            total = None if table.estimated_rows < 0 else max(table.estimated_rows, there)
            self._tasks[table.name] = self._progress.add_task(table.name, total=total, completed=there)

    def wrote(self, table: str, rows: int) -> None:
        """Move a bar."""
        with self._lock:
            self._progress.advance(self._tasks[table], rows)

    def note(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, highlight=False, soft_wrap=True)


def export(
    tables: Annotated[list[str], typer.Argument(help="Tables or views: name or schema.name.")],
    to: Annotated[Path, typer.Option("--to", help="Directory; one that was interrupted is gone on with.")],
    form: Annotated[str, typer.Option("--format", help="parquet, arrow or raw.")] = "parquet",
    dsn: Annotated[
        str | None, typer.Option(help="Conninfo or URI of PostgreSQL; by default as the server's.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", envvar="PGFLIGHT_CONFIG", help="TOML file.")] = None,
    streams: Annotated[int, typer.Option(min=1, max=256, help="Sessions that read at once.")] = 2,
    file_mib: Annotated[int, typer.Option(min=1, help="How much of a table becomes one file.")] = 256,
    profile: Annotated[str, typer.Option(help="arrow or plain: with or without extension types.")] = "arrow",
    keep_finished: Annotated[
        bool, typer.Option("--keep-finished", help="Keep finished tables though the database has changed since.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as one JSON object.")] = False,
) -> None:
    """Write tables to files, all of one snapshot; the same command goes on with what was interrupted.

    Files appear when they are whole. The manifest has their row counts and checksums.
    """
    console = Console(stderr=True)
    try:
        settings = load(config, dsn=dsn)
        configure_logging("auto", "warning")
        options = ExportOptions(
            tuple(tables), to, form, streams, file_mib, profile, keep_finished, settings.max_row_mib
        )
        with Bars(console) as bars:
            manifest = Export(settings.dsn.get_secret_value(), options, bars).run()
    except PgflightError as failure:
        console.print(f"[red]error:[/red] {failure}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("interrupted: the same command goes on from here", highlight=False)
        sys.exit(INTERRUPTED)
    written = {name: {"rows": facts.rows, "files": len(facts.files)} for name, facts in manifest.tables.items()}
    if as_json:
        typer.echo(json.dumps({"consistent": manifest.consistent, "tables": written}))
        return
    for name, counts in written.items():
        console.print(f"{name}: {counts['rows']:,} rows in {counts['files']} files", highlight=False)
    if not manifest.consistent:
        console.print("the tables are of different snapshots (the manifest says which)", highlight=False)
