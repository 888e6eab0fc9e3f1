"""The reading side, a process of its own: a query's rows through pgflight, with progress and figures."""

import json
import time
from dataclasses import asdict
from typing import Annotated

import pyarrow as pa
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from demo import report
from demo.report import Figures
from pgflight import connect
from pgflight.console import fail
from pgflight.text import rows as rows_as_text

# Figures may go to a pipe: everything for human eyes goes to stderr.
console = Console(stderr=True, highlight=False)


def read(uri: str, query: str, streams: int | None) -> tuple[Figures, pa.RecordBatch]:
    """Read a query to its end, drawing a progress bar; return the figures and the first batch."""
    with connect(uri) as client, _progress() as progress:
        with client.query(query, streams=streams) as warm_up:
            next(iter(warm_up), None)  # the server's first answer also loads its compiled kernels
        started = time.perf_counter()
        reader = client.query(query, streams=streams)
        task = progress.add_task("reading", total=reader.estimated_rows, mb=0.0, rows=0)
        first: pa.RecordBatch | None = None
        first_batch_seconds = 0.0
        batches = 0
        for batch in reader:
            batches += 1
            if first is None:
                first, first_batch_seconds = batch, time.perf_counter() - started
            done = reader.progress
            progress.update(task, completed=done.rows, rows=done.rows, mb=done.bytes / 1e6)
        seconds = time.perf_counter() - started
        done = reader.progress
        progress.update(task, completed=done.rows, total=done.rows)
        if first is None:
            first = pa.RecordBatch.from_pylist([], schema=reader.schema)
        return Figures(done.rows, batches, done.bytes, seconds, first_batch_seconds), first


def _progress() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[rows]:>12,} rows  {task.fields[mb]:>8,.0f} MB"),
        TimeElapsedColumn(),
        console=console,
    )


def main(
    uri: Annotated[str, typer.Argument(help="Where the server listens, such as grpc://127.0.0.1:8815.")],
    query: Annotated[str, typer.Argument(help="A table's name, or SQL.")] = "lineorder",
    streams: Annotated[int | None, typer.Option(help="Parallel COPY streams; else the server chooses.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write the figures to stdout as JSON.")] = False,
) -> None:
    """Read a table or a query through a pgflight server and say how fast it was."""
    try:
        figures, first = read(uri, query, streams)
    except (pa.ArrowException, OSError, ValueError) as error:
        fail(error)
        raise typer.Exit(1) from None
    console.print(report.sample(first.schema, rows_as_text(first.slice(0, report.SAMPLE_ROWS))))
    console.print(report.speed(figures))
    if as_json:
        typer.echo(json.dumps(asdict(figures)))


if __name__ == "__main__":
    typer.run(main)
