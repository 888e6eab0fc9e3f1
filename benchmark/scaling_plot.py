"""The scaling curves as a picture: rows a second, and time as a multiple of the floor's, against streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.contestants import ENDPOINTS
from benchmark.page import COLOURS, INK, caption, page, plain
from benchmark.results import Entry
from benchmark.scaling import Curve

WIDTH_INCHES = 8.5
PANEL_INCHES = 2.6
CAPTION_INCHES = 0.5
DASHED = (0, (4, 3))
LEAST_TOP_RATIO = 1.5
LABEL_OFFSETS = (6, -14)
"""Points above and below: of two curves the higher one has its figures above, the lower one below."""


def draw(curves: Sequence[Curve], environment: Mapping[str, Any], path: Path) -> None:
    """Draw two panels per data set.

    Raises
    ------
    ModuleNotFoundError
        matplotlib is not installed.
    """
    with page(path, WIDTH_INCHES, len(curves) * PANEL_INCHES + CAPTION_INCHES) as figure:
        panels = figure.subplots(len(curves), 2, squeeze=False)
        for (speed, ratio), curve in zip(panels, curves, strict=True):
            _speed(speed, curve)
            _ratio(ratio, curve)
        figure.supxlabel(f"parallel streams\n{caption(environment)}", fontsize=8)


def _speed(axis: Any, curve: Curve) -> None:
    lines = [[point.floor for point in curve.points], *_ways(curve)]
    for entries in lines:
        speeds = [curve.rows / entry.median.seconds / 1e6 for entry in entries]
        axis.plot(_streams(curve), speeds, label=_label(entries[0]), **_look(entries[0]))
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False, labelcolor=INK, loc="lower right")
    _panel(axis, curve, f"{curve.table}, {curve.rows / 1e6:g} M rows: M rows/s")


def _ratio(axis: Any, curve: Curve) -> None:
    for entries in _ways(curve):
        ratios = [point.ratio(entry) for point, entry in zip(curve.points, entries, strict=True)]
        axis.plot(_streams(curve), ratios, **_look(entries[0]))
    highest = LEAST_TOP_RATIO
    for point in curve.points:
        falling = sorted((point.ratio(way) for way in point.ways), reverse=True)
        highest = max(highest, falling[0])
        for ratio, offset in zip(falling, LABEL_OFFSETS, strict=False):
            place = {"textcoords": "offset points", "xytext": (0, offset), "ha": "center", "color": INK}
            axis.annotate(f"{ratio:.2f}", (point.streams, ratio), **place)
    axis.axhline(1.0, color=INK, linewidth=1, linestyle=DASHED)
    axis.set_ylim(0, highest * 1.15)
    _panel(axis, curve, "time as a multiple of the raw streams'")


def _panel(axis: Any, curve: Curve, title: str) -> None:
    streams = _streams(curve)
    axis.set_xscale("log", base=2)
    axis.set_xticks(streams, [str(count) for count in streams])
    axis.minorticks_off()
    axis.margins(x=0.1)
    plain(axis, title, axis.yaxis)


def _streams(curve: Curve) -> list[int]:
    return [point.streams for point in curve.points]


def _ways(curve: Curve) -> list[tuple[Entry, ...]]:
    """Turn points with ways into ways with points."""
    return list(zip(*(point.ways for point in curve.points), strict=True))


def _label(entry: Entry) -> str:
    return "raw COPY streams, drained" if entry.group == "floor" else entry.title


def _look(entry: Entry) -> dict[str, Any]:
    dashed = {"linestyle": DASHED} if entry.name == ENDPOINTS.name else {}
    return {"color": COLOURS[entry.group], "marker": "o", "markersize": 4, "linewidth": 1.8, **dashed}
