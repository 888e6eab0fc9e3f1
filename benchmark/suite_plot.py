"""The suite's pictures: time by transport with the CPU's share, us against peers, decode throughput by type."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.by_type import TypeFigures
from benchmark.page import COLOURS, INK, caption, page, plain
from benchmark.transports import TransportEntry, TransportResult

WIDTH_INCHES = 8.5
BAR_INCHES = 0.3
MARGIN_INCHES = 1.0
CPU_COLOUR = "#2f9e8f"
Panel = tuple[int, Callable[[Any], None]]
"""How many bars a panel has, and what draws it."""


def draw(
    results: Sequence[TransportResult], types: Sequence[TypeFigures], environment: Mapping[str, Any], path: Path
) -> None:
    """Draw what there is, one panel below the other.

    Raises
    ------
    ModuleNotFoundError
        matplotlib is not installed.
    """
    panels = [panel for result in results for panel in _result_panels(result)]
    if types:
        panels.append((len(types), lambda axis: _types(axis, types)))
    heights = [bars * BAR_INCHES + MARGIN_INCHES for bars, _ in panels]
    with page(path, WIDTH_INCHES, sum(heights)) as figure:
        axes = figure.subplots(len(panels), height_ratios=heights, squeeze=False).flat
        for axis, (_, fill) in zip(axes, panels, strict=True):
            fill(axis)
        figure.supxlabel(caption(environment), fontsize=8)


def _result_panels(result: TransportResult) -> list[Panel]:
    ours = [entry for entry in result.entries if entry.group == "pgflight"]
    panels: list[Panel] = [(2 * len(ours), lambda axis: _transports(axis, result, ours))]
    if any(entry.group == "peer" for entry in result.entries):
        panels.append((len(result.entries), lambda axis: _against(axis, result)))
    return panels


def _transports(axis: Any, result: TransportResult, ours: Sequence[TransportEntry]) -> None:
    """Wall time, and below it the CPU time of the server."""
    names = [entry.name for entry in ours]
    places = range(len(ours))
    axis.barh(
        [place - 0.2 for place in places],
        [entry.seconds for entry in ours],
        height=0.36,
        color=COLOURS["pgflight"],
        label="time",
    )
    axis.barh(
        [place + 0.2 for place in places],
        [entry.server_cpu_s or 0.0 for entry in ours],
        height=0.36,
        color=CPU_COLOUR,
        label="server's CPU time",
    )
    axis.axvline(result.floor_s, color=INK, linewidth=1, linestyle=(0, (4, 3)), label="raw COPY, drained")
    axis.set_yticks(list(places), names)
    axis.invert_yaxis()
    axis.legend(frameon=False, labelcolor=INK, fontsize=8)
    plain(axis, f"{_title(result)}: seconds by transport", axis.xaxis)


def _against(axis: Any, result: TransportResult) -> None:
    entries = sorted(result.entries, key=lambda entry: entry.seconds)
    axis.barh(
        [entry.name for entry in entries],
        [entry.seconds for entry in entries],
        height=0.7,
        color=[COLOURS[entry.group] for entry in entries],
    )
    for place, entry in enumerate(entries):
        axis.annotate(
            f"{entry.seconds / result.floor_s:.2f} x",
            (entry.seconds, place),
            textcoords="offset points",
            xytext=(4, 0),
            va="center",
            color=INK,
        )
    axis.invert_yaxis()
    plain(axis, f"{_title(result)}: seconds, and as a multiple of the floor", axis.xaxis)


def _types(axis: Any, types: Sequence[TypeFigures]) -> None:
    fastest = sorted(types, key=lambda one: -one.gb_per_s)
    axis.barh(
        [one.type for one in fastest], [one.gb_per_s for one in fastest], height=0.7, color=COLOURS["pgflight"]
    )
    axis.invert_yaxis()
    plain(axis, "Decoding on one core: GB/s of the wire by type", axis.xaxis)


def _title(result: TransportResult) -> str:
    streams = "1 stream" if result.streams == 1 else f"{result.streams} streams"
    return f"{result.dataset}, {result.rows / 1e6:g} M rows, {streams}"
