"""The figures as tables for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from benchmark.contestants import REFERENCE
from benchmark.decoding import DecodingFigures
from benchmark.latency import Latency, Startup
from benchmark.memory import Growth, Leaks
from benchmark.results import DatasetResult, Entry
from benchmark.scaling import Curve, Point

STYLES = {"floor": "dim", "pgflight": "bold cyan", "peer": ""}
SPEED_COLUMNS = ("seconds", "min-max", "x COPY", "x DataRow", "first ms", "M rows/s", "MB/s")
COST_COLUMNS = ("client CPU s", "server CPU s", "client MB", "server MB")
SPEED_LEGEND = (
    "x COPY and x DataRow: time as a multiple of that floor with as many streams. MB/s: of the COPY stream. "
    "first ms: until the first batch, or the whole where there is only one."
)
COST_LEGEND = "Of the reading process, and of pgflight's server. MB: peak resident memory, libraries included."
SCALING_COLUMNS = ("floor s", "pgflight s", "min-max", "ratio", "M rows/s", "GB/s", "server CPU s", "client CPU s")
SCALING_LEGEND = (
    "floor: as many raw COPY streams over equal ranges of pages, drained and not decoded. ratio: time as a multiple of "
    "the floor's. GB/s: of the COPY streams' bytes."
)

HELD = {
    "busy": "backends at work",
    "idle": "backends kept for the next read",
    "descriptors": "other descriptors",
    "threads": "threads",
}


def contest(result: DatasetResult) -> RenderableType:
    """Show one data set: everybody with one stream, then those with several."""
    size = f", {result.wire_bytes / 1e6:,.0f} MB of COPY" if result.wire_bytes else ""
    speed = _contest_table(f"{result.table}: {result.rows:,} rows{size}", SPEED_COLUMNS, result, _speed)
    cost = _contest_table(f"{result.table}: what it costs", COST_COLUMNS, result, _cost)
    return Group(speed, f"[dim]{SPEED_LEGEND}\n", cost, f"[dim]{COST_LEGEND}", *_notes(result))


def decoding(figures: Sequence[DecodingFigures]) -> RenderableType:
    """Show the kernels' speed."""
    table = _table(
        "Kernels alone, one core, blocks of 1 MiB", "data set", "framing", "wire MB", "scan GB/s", "decode GB/s",
        "both GB/s", "scan ns/row", "decode ns/field", lefts=2,
    )  # fmt: skip
    for each in figures:
        table.add_row(
            each.table,
            each.framing,
            f"{each.wire_bytes / 1e6:,.0f}",
            *(f"{rate:.2f}" for rate in (each.scan_gb_per_s, each.decode_gb_per_s, each.both_gb_per_s)),
            f"{each.scan_ns_per_row:.1f}",
            f"{each.decode_ns_per_field:.2f}",
        )
    return table


def memory(growths: Sequence[Growth], leaks: Leaks) -> RenderableType:
    """Show what the server's memory did, and what was left after cancelled reads."""
    grown = _table(
        "The server's resident memory over one result", "client", "pool MB", "result MB", "seconds", "before MB",
        "peak MB", "growth MB",
    )  # fmt: skip
    for each in growths:
        sizes = (each.pool_bytes, each.result_bytes, each.base_bytes, each.peak_bytes, each.growth_bytes)
        pool, result, *rest = (f"{size / 1e6:,.0f}" for size in sizes)
        grown.add_row(each.client, pool, result, f"{each.seconds:.2f}", *rest)
    left = _table(f"What the server holds, around {leaks.cancelled} cancelled reads", "", "before", "after")
    before, after = asdict(leaks.before), asdict(leaks.after)
    for name, title in HELD.items():
        left.add_row(title, str(before[name]), str(after[name]))
    left.add_row("seconds until so", "", f"{leaks.settled_s:.2f}")
    return Group(grown, left)


def latency(latencies: Sequence[Latency], startups: Sequence[Startup]) -> RenderableType:
    """Show one-row queries and the server's start."""
    asked = _table("One-row query", "", "queries", "p50 ms", "p99 ms")
    for each in latencies:
        asked.add_row(each.title, f"{each.queries:,}", f"{each.p50_ms:.2f}", f"{each.p99_ms:.2f}")
    started = _table("Server from its start", "kernels", "listens after s", "first batch after s")
    for start in startups:
        started.add_row(start.kernels, f"{start.listening_s:.2f}", f"{start.first_batch_s:.2f}")
    return Group(asked, started)


def scaling(curve: Curve) -> RenderableType:
    """Show one table's points, and in a table of their own those by endpoints."""
    size = f"{curve.table}: {curve.rows:,} rows, {curve.wire_bytes / 1e6:,.0f} MB of COPY"
    tables = []
    for way, title in enumerate(each.title for each in curve.points[0].ways):
        table = _table(f"{size}; {title}", "streams", *SCALING_COLUMNS)
        for point in curve.points:
            table.add_row(str(point.streams), *_point(curve, point, point.ways[way]))
        tables.append(table)
    return Group(*tables, f"[dim]{SCALING_LEGEND}")


def _point(curve: Curve, point: Point, way: Entry) -> Iterator[str]:
    median = way.median
    fastest, slowest = way.range_s
    yield f"{point.floor.median.seconds:.3f}"
    yield f"{median.seconds:.3f}"
    yield f"{fastest:.2f}-{slowest:.2f}"
    yield f"{point.ratio(way):.2f}"
    yield f"{curve.rows / median.seconds / 1e6:.2f}"
    yield f"{curve.wire_bytes / median.seconds / 1e9:.2f}"
    yield _number(median.server_cpu_s, ".2f")
    yield f"{median.client_cpu_s:.2f}"


def _contest_table(
    title: str,
    columns: Sequence[str],
    result: DatasetResult,
    cells: Callable[[DatasetResult, Entry], Iterator[str]],
) -> Table:
    table = _table(title, "", *columns)
    for streams in sorted({entry.streams for entry in result.entries}):
        table.add_section()
        table.add_row(f"[italic]{streams} stream{'s' if streams > 1 else ''}")
        for entry in result.entries:
            if entry.streams == streams:
                table.add_row(entry.title, *cells(result, entry), style=STYLES[entry.group])
    return table


def _speed(result: DatasetResult, entry: Entry) -> Iterator[str]:
    median = entry.median
    ratios = result.ratios(entry)
    fastest, slowest = entry.range_s
    yield f"{median.seconds:.3f}"
    yield f"{fastest:.2f}-{slowest:.2f}"
    yield _number(ratios.copy, ".2f")
    yield _number(ratios.data_row, ".2f")
    yield f"{median.first_seconds * 1e3:,.0f}"
    yield f"{result.rows / median.seconds / 1e6:.2f}"
    yield _number(result.wire_bytes / median.seconds / 1e6 or None, ",.0f")


def _cost(_result: DatasetResult, entry: Entry) -> Iterator[str]:
    median = entry.median
    yield f"{median.client_cpu_s:.2f}"
    yield _number(median.server_cpu_s, ".2f")
    yield f"{median.client_peak_bytes / 1e6:,.0f}"
    yield _number(median.server_peak_bytes and median.server_peak_bytes / 1e6, ",.0f")


def _notes(result: DatasetResult) -> Iterator[str]:
    if not result.compared:
        yield f"values were not compared: {REFERENCE} did not run"
    for entry in result.entries:
        if entry.differs:
            yield f"{entry.name}: other values than psycopg's in {', '.join(entry.differs)}"
    for name, missing in result.absent.items():
        yield f"{name}: absent, {missing} is not installed"
    for name, said in result.failed.items():
        yield f"{name}: failed, {escape(said)}"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def _table(title: str, *columns: str, lefts: int = 1) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < lefts else "right", no_wrap=index < lefts)
    return table
