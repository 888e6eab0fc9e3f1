"""The command line: ``python -m benchmark``, and its commands; ``--help`` lists them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn

import psycopg
import typer
from rich.console import Console
from rich.markup import escape

from benchmark import decoding, latency, memory, plot, report, scaling, scaling_plot, setting, suite_plot, tables
from benchmark.by_type import TypeFigures
from benchmark.contest import Contest, DifferentError
from benchmark.contestants import CONTESTANTS, UnknownContestantError, by_name
from benchmark.environment import describe
from benchmark.plot import PlotError
from benchmark.progress import filling, reading
from benchmark.results import DatasetResult
from benchmark.scaling import Curve, Scaling, TooSmallError
from benchmark.tables import MarkerError
from benchmark.target import Target
from benchmark.transports import TransportResult
from benchmark.worker import WorkerError
from demo.distribution import DistributionError
from demo.lineitem import GeneratorError
from demo.postgres import PostgresError
from demo.server import ServerError
from kernels.errors import PgflightError

DATASETS = ("lineorder", "lineitem")
"""Read where none is named."""
NESTED = ("arrays", "composites")
"""Contestants spell these each in its own way: floors and pgflight alone read them, and no values are compared."""
CHOICES = (*DATASETS, "wide", "nulls", "embeddings", "embeddings_768", *NESTED)
MAX_AUTO_STREAMS = 4  # as the server's own default
PIPE_COLUMNS = 110
FAILURES = (
    DistributionError, PostgresError, ServerError, GeneratorError, UnknownContestantError, WorkerError,
    DifferentError, PlotError, TooSmallError, MarkerError, PgflightError, psycopg.Error, OSError, ModuleNotFoundError,
)  # fmt: skip

Tables = Annotated[list[str] | None, typer.Option("--dataset", help=f"{', '.join(CHOICES)}; repeatable.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")]
Plot = Annotated[Path | None, typer.Option("--plot", help="Draw the figures into this SVG or PNG file.")]
Dsn = Annotated[str | None, typer.Option(help="Use this PostgreSQL; the tables are made in it.")]
Data = Annotated[Path | None, typer.Option(help="Directory of a cluster to keep; else a throwaway one.")]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS)


@app.callback(invoke_without_command=True)
def contest(
    context: typer.Context,
    dataset: Tables = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows of each table.")] = 5_000_000,
    repeat: Annotated[int, typer.Option(min=1, help="Rounds after the warm-up.")] = 5,
    streams: Annotated[int | None, typer.Option(min=2, help="Of those that read in parallel.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="A contestant's name; repeatable.")] = None,
    json_file: Json = None,
    plot_file: Plot = None,
    dsn: Dsn = None,
    data: Data = None,
) -> None:
    """Read whole tables into Arrow: raw floors, pgflight and its peers, in turn, each in its own process."""
    if context.invoked_subcommand is not None:
        return
    tables = _tables(dataset)
    with told():
        names = [by_name(name).name for name in only or ()]
    parallel = streams or max(2, min(MAX_AUTO_STREAMS, len(os.sched_getaffinity(0))))
    with prepared(dsn, data) as (database, facts):
        results = []
        with setting.pgflight_server(database) as server:
            for table in tables:
                target = Target(database, server.uri, server.pid, table, rows, parallel)
                results.append(_contest(target, names, repeat))
                console.print(report.contest(results[-1]))
        written = {"repeat": repeat, "datasets": [result.to_json() for result in results]}
        write(json_file, facts, written)
        if plot_file is not None:
            plot.draw(results, facts, plot_file)


@app.command("scaling")
def scaling_command(
    dataset: Tables = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows of each table.")] = 5_000_000,
    repeat: Annotated[int, typer.Option(min=1, help="Rounds after the warm-up.")] = 5,
    streams_list: Annotated[str | None, typer.Option(help="Such as 1,2,4; else doubling up to the cores.")] = None,
    endpoints: Annotated[bool, typer.Option(help="Also read by as many endpoints, a process each.")] = False,
    json_file: Annotated[Path, typer.Option("--json", help="Write the figures to this file.")] = Path(
        "scaling.json"
    ),
    plot_file: Plot = None,
    dsn: Dsn = None,
    data: Data = None,
) -> None:
    """Read whole tables by 1, 2, 4 … streams: pgflight, and as many raw streams, in turn."""
    tables, counts = _tables(dataset), _counts(streams_list)
    curves: dict[str, Curve] = {}
    skipped: dict[str, str] = {}

    def save() -> None:
        written = [curve.to_json() for curve in curves.values()]
        write(json_file, facts, {"repeat": repeat, "scaling": written, "skipped": skipped})

    with prepared(dsn, data, scaling.postgres_settings(max(counts), rows)) as (database, facts):
        with setting.pgflight_server(database, *scaling.server_options(max(counts))) as server:
            for table in tables:
                try:
                    target = Target(database, server.uri, server.pid, table, rows, 1)
                    fill(target)
                except GeneratorError as failure:
                    skipped[table] = str(failure)
                    console.print(f"{table}: skipped, {escape(str(failure))}", soft_wrap=True)
                    continue
                for curve in _curves(target, counts, repeat, endpoints=endpoints):
                    curves[table] = curve
                    save()  # after every round: what is measured is not lost when the time is up
                console.print(report.scaling(curves[table]))
        if not curves:
            fail("nothing was measured")
        save()
        if plot_file is not None:
            _draw_if_possible(list(curves.values()), facts, json_file, plot_file)


@app.command()
def kernels(
    dataset: Tables = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows of each table.")] = 500_000,
    repeat: Annotated[int, typer.Option(min=1, help="Passes over each stream.")] = 9,
    json_file: Json = None,
    dsn: Dsn = None,
    data: Data = None,
) -> None:
    """Decode captured streams: the kernels alone, on one core."""
    tables = _tables(dataset)
    with prepared(dsn, data) as (database, facts):
        figures = []
        for table in tables:
            fill(Target(database, "", None, table, rows, 1))
            figures += [decoding.measure(database, table, framing, repeat) for framing in decoding.FRAMINGS]
        console.print(report.decoding(figures))
        write(json_file, facts, {"repeat": repeat, "kernels": [asdict(each) for each in figures]})


@app.command("memory")
def memory_command(
    pool_mib: Annotated[int, typer.Option(min=16, help="The server's memory for blocks and batches.")] = 32,
    cancels: Annotated[int, typer.Option(min=1, help="Reads to cancel.")] = 200,
    json_file: Json = None,
    dsn: Dsn = None,
    data: Data = None,
) -> None:
    """Read a result of 20 times the server's memory, and cancel reads: what grows, and what stays behind."""
    with prepared(dsn, data) as (database, facts):
        growths = memory.growth(database, pool_mib)
        with setting.pgflight_server(database) as server:
            leaks = memory.leaks(database, server.uri, server.pid, cancels)
        console.print(report.memory(growths, leaks))
        write(json_file, facts, {"growth": [asdict(each) for each in growths], "leaks": asdict(leaks)})


@app.command("latency")
def latency_command(
    queries: Annotated[int, typer.Option(min=1, help="Queries of each contestant.")] = 1000,
    cold: Annotated[bool, typer.Option(help="Also start a server that must compile its kernels.")] = True,
    json_file: Json = None,
    dsn: Dsn = None,
    data: Data = None,
) -> None:
    """Ask for one row again and again, and start servers."""
    with prepared(dsn, data) as (database, facts):
        with setting.pgflight_server(database) as server:
            latencies = latency.queries(database, server.uri, queries)
        startups = latency.startup(database, cold=cold)
        console.print(report.latency(latencies, startups))
        written = {"latency": [asdict(each) for each in latencies], "startup": [asdict(each) for each in startups]}
        write(json_file, facts, written)


@app.command("plot")
def plot_command(
    figures: Annotated[Path, typer.Argument(help="What --json wrote.", exists=True)],
    picture: Annotated[Path, typer.Argument(help="An SVG or PNG file.")],
) -> None:
    """Draw a contest, scaling curves or the suite's figures again."""
    written = json.loads(figures.read_text())
    with told():
        if "scaling" in written:
            curves = [Curve.from_json(each) for each in written["scaling"]]
            scaling_plot.draw(curves, written["environment"], picture)
            return
        if "transports" in written:
            compared = [TransportResult.from_json(each) for each in written["transports"]]
            types = [TypeFigures(**each) for each in written["types"]]
            suite_plot.draw(compared, types, written["environment"], picture)
            return
        results = [DatasetResult.from_json(each) for each in written["datasets"]]
        plot.draw(results, written["environment"], picture)


@app.command("tables")
def tables_command(
    figures: Annotated[Path, typer.Argument(help="What bench --json wrote.", exists=True)],
    document: Annotated[Path, typer.Argument(help="A Markdown file with markers.", exists=True)],
) -> None:
    """Write the suite's figures into a document's tables."""
    with told():
        tables.fill(document, json.loads(figures.read_text()))


def wanted(table: str, names: Sequence[str]) -> Sequence[str]:
    """Return who reads a table where nobody is named."""
    return names or [each.name for each in CONTESTANTS if table not in NESTED or each.group != "peer"]


def _contest(target: Target, names: Sequence[str], repeat: int) -> DatasetResult:
    fill(target)
    with reading(console, target.table) as step:
        match = Contest(target, wanted(target.table, names), step.to)
        step.of((repeat + 1) * len(match.running))
        match.verify()
        for _ in range(repeat):
            match.round()
        return match.result()


def _curves(target: Target, counts: Sequence[int], repeat: int, *, endpoints: bool) -> Iterator[Curve]:
    """Yield the curve after every round, each time of one sample more."""
    with reading(console, target.table) as step:
        reads = Scaling(target, counts, step.to, endpoints=endpoints)
        reads.require_streams()
        step.of(reads.reads(repeat))
        reads.warm_up()
        for _ in range(repeat):
            reads.round()
            yield reads.result()


def _draw_if_possible(curves: Sequence[Curve], facts: Mapping[str, Any], figures: Path, picture: Path) -> None:
    try:
        scaling_plot.draw(curves, facts, picture)
    except ModuleNotFoundError as missing:
        console.print(f"not drawn, {missing}: later, python -m benchmark plot {figures} {picture}", soft_wrap=True)


def fill(target: Target) -> None:
    """Fill the target's table, with a bar."""
    with filling(console, target.table, target.rows) as progress:
        setting.fill(target, progress)


@contextmanager
def prepared(
    dsn: str | None, data: Path | None, settings: Mapping[str, str] | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Provide a PostgreSQL and the facts about this run; failures become one line."""
    with told(), setting.postgres(dsn, data, settings) as database:
        yield database, describe(database)


@contextmanager
def told(failures: tuple[type[Exception], ...] = FAILURES) -> Iterator[None]:
    """Turn failures into one line and an exit status."""
    try:
        yield
    except failures as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted", 130)


def _tables(dataset: Sequence[str] | None) -> list[str]:
    tables = list(dataset or DATASETS)
    for table in tables:
        if table not in CHOICES:
            fail(f"unknown data set {table!r}: choose from {', '.join(CHOICES)}")
    return tables


def _counts(streams_list: str | None) -> list[int]:
    """Read the numbers of streams from the command line, or choose them."""
    if streams_list is None:
        return scaling.doubling(len(os.sched_getaffinity(0)))
    words = [word.strip() for word in streams_list.split(",")]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        fail(f"--streams-list {streams_list!r}: numbers of streams with commas between, such as 1,2,4")
    return sorted(set(map(int, words)))


def write(path: Path | None, facts: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
    """Write figures and where they were measured, if a file is given."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"environment": facts, **figures}, indent=1) + "\n")


def fail(message: str, status: int = 1) -> NoReturn:
    """End with a message."""
    Console(stderr=True, highlight=False).print(f"[red]error:[/] {escape(message)}", soft_wrap=True)
    raise typer.Exit(status)


if __name__ == "__main__":
    app(prog_name="python -m benchmark")
