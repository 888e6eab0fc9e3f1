"""The contest as a picture: time as a multiple of the COPY floor, ours against the peers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.contestants import COPY_FLOOR
from benchmark.page import COLOURS, INK, caption, page, plain
from benchmark.results import DatasetResult, Entry

LEFT_OUT = ("datarow-floor", "datarow-floor-parallel", "pgflight-copy", "psql")
"""Second sights of what is shown already."""
WIDTH_INCHES = 8.5
BAR_INCHES = 0.29
MARGIN_INCHES = 0.9
CUT_RATIO = 3.0
"""Longer bars are cut here: the slowest would press all others together."""


class PlotError(RuntimeError):
    """There is nothing to draw: no floor to compare with."""


def draw(results: Sequence[DatasetResult], environment: Mapping[str, Any], path: Path) -> None:
    """Draw one panel per data set.

    Raises
    ------
    PlotError
        The COPY floor did not run.
    ModuleNotFoundError
        matplotlib is not installed.
    """
    shown = [_shown(result) for result in results]
    heights = [len(entries) for entries in shown]
    with page(path, WIDTH_INCHES, sum(heights) * BAR_INCHES + len(results) * MARGIN_INCHES) as figure:
        axes = figure.subplots(len(results), height_ratios=heights, squeeze=False).flat
        for axis, result, entries in zip(axes, results, shown, strict=True):
            _panel(axis, result, entries)
        figure.supxlabel(f"time as a multiple of one raw COPY stream\n{caption(environment)}", fontsize=8)


def _shown(result: DatasetResult) -> list[Entry]:
    """Choose what to show, the slowest at the bottom."""
    if result.seconds(COPY_FLOOR) is None:
        raise PlotError(f"the plot needs {COPY_FLOOR}, which did not run over {result.table}")
    entries = [entry for entry in result.entries if entry.name not in LEFT_OUT]
    return sorted(entries, key=lambda entry: -entry.median.seconds)


def _panel(axis: Any, result: DatasetResult, entries: Sequence[Entry]) -> None:
    ratios = [result.ratios(entry).copy_single or 0.0 for entry in entries]
    axis.barh(
        [_label(entry) for entry in entries],
        [min(ratio, CUT_RATIO) for ratio in ratios],
        color=[COLOURS[entry.group] for entry in entries],
        height=0.72,
    )
    beside = axis.get_yaxis_transform()
    for row, (entry, ratio) in enumerate(zip(entries, ratios, strict=True)):
        axis.text(1.07, row, f"{ratio:.2f}", transform=beside, ha="right", va="center", weight="bold")
        axis.text(1.17, row, f"{entry.median.seconds:.2f} s", transform=beside, ha="right", va="center")
    axis.axvline(1.0, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axis.set(xlim=(0, CUT_RATIO))
    axis.margins(y=0.02)
    plain(axis, f"{result.table}, {result.rows / 1e6:g} M rows", axis.xaxis)


def _label(entry: Entry) -> str:
    return entry.title if entry.streams == 1 else f"{entry.title}, {entry.streams} streams"
