"""The suite's figures as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from benchmark.by_type import TypeFigures
from benchmark.replay import ReplayFigures
from benchmark.transports import TransportEntry, TransportResult

STYLES = {"floor": "dim", "pgflight": "bold cyan", "peer": ""}
WAYS = (
    "seconds", "min-max", "x floor", "M rows/s", "server CPU s", "CPU s/GB", "client CPU s", "server MB", "client MB",
)  # fmt: skip
LEGEND = (
    "x floor: time as a multiple of as many raw COPY streams, drained. CPU s/GB: of the server, by GB received. "
    "MB: peak resident memory."
)
STAGES_LEGEND = "Seconds on the clock / of the CPU, all streams together; hand out: Flight and the client's pace."


def transports(result: TransportResult) -> RenderableType:
    """Show one data set."""
    table = _table(
        f"{result.dataset}: {result.rows:,} rows, streams: {result.streams}, {result.output}", "", *WAYS
    )
    for entry in result.entries:
        table.add_row(entry.name, *_figures(result, entry), style=STYLES[entry.group])
    notes = [f"[yellow]{name}: left out, {escape(why)}" for name, why in result.absent.items()]
    notes += [
        f"[yellow]{entry.name}: other values in {', '.join(entry.differs)}"
        for entry in result.entries
        if entry.differs
    ]
    return Group(table, f"[dim]{LEGEND}", *notes, "", *_breakdown(result))


def types(figures: Sequence[TypeFigures]) -> RenderableType:
    """Show decoding by type."""
    table = _table("Decoding on one core, by type", "type", "GB/s", "ns/field")
    for one in figures:
        table.add_row(one.type, f"{one.gb_per_s:.2f}", f"{one.ns_per_field:.2f}")
    return table


def replays(source: str, figures: Sequence[ReplayFigures]) -> RenderableType:
    """Show the pipeline without PostgreSQL."""
    stages = list(figures[0].stages) if figures else []
    table = _table(f"Replay of {source}, without PostgreSQL", "transport", "GB/s", "seconds", "CPU s", *stages)
    for one in figures:
        cells = [_stage(one.stages.get(stage)) for stage in stages]
        table.add_row(one.transport, f"{one.gb_per_s:.2f}", f"{one.seconds:.3f}", f"{one.cpu_s:.3f}", *cells)
    return Group(table, f"[dim]{STAGES_LEGEND}", *(_counters(one.transport, one.moved) for one in figures))


def _breakdown(result: TransportResult) -> list[RenderableType]:
    """Show what the server did in its last read of each transport."""
    reads = {entry.name: entry.read for entry in result.entries if entry.read is not None}
    if not reads:
        return []
    stages = list(dict.fromkeys(stage for read in reads.values() for stage in read.stages))
    table = _table(f"{result.dataset}: where the time goes", "", *stages)
    for name, read in reads.items():
        table.add_row(name, *(_stage(read.stages.get(stage)) for stage in stages))
    return [table, f"[dim]{STAGES_LEGEND}", *(_counters(name, read.moved) for name, read in reads.items())]


def _figures(result: TransportResult, entry: TransportEntry) -> list[str]:
    return [
        f"{entry.seconds:.3f}",
        f"{min(entry.all_seconds):.3f}-{max(entry.all_seconds):.3f}",
        f"{entry.seconds / result.floor_s:.2f}",
        f"{result.rows / entry.seconds / 1e6:.2f}",
        _optional(entry.server_cpu_s),
        _optional(entry.server_cpu_s_per_gb),
        f"{entry.client_cpu_s:.2f}",
        "" if entry.server_peak_bytes is None else f"{entry.server_peak_bytes / 1e6:,.0f}",
        f"{entry.client_peak_bytes / 1e6:,.0f}",
    ]


def _stage(seconds: Mapping[str, float] | None) -> str:
    return "" if seconds is None else f"{seconds['wall_s']:.3f} / {seconds['cpu_s']:.3f}"


def _counters(name: str, moved: Mapping[str, int]) -> str:
    return f"[dim]{name}: " + ", ".join(f"{what.replace('_', ' ')} {count:,}" for what, count in moved.items())


def _optional(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1))
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table
