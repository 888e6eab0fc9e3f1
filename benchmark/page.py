"""What all pictures have in common: colours, a page that is saved the same every time, the caption."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Middle greys and saturated hues: they stand out from a white page and from a black one.
INK = "#7d8590"
COLOURS = {"floor": "#9aa1a9", "pgflight": "#e8590c", "peer": "#3b82c4"}


@contextmanager
def page(path: Path, width_inches: float, height_inches: float) -> Iterator[Any]:
    """Yield a figure; save it as SVG or PNG when it is drawn.

    Raises
    ------
    ModuleNotFoundError
        matplotlib is not installed.
    """
    import matplotlib as mpl  # noqa: PLC0415 - an extra
    import matplotlib.pyplot as plt  # noqa: PLC0415

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "pgflight", "font.size": 9, "text.color": INK}):
        figure = plt.figure(figsize=(width_inches, height_inches), layout="constrained")
        try:
            yield figure
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, transparent=True, metadata={"Date": None} if path.suffix == ".svg" else None)
        finally:
            plt.close(figure)


def plain(axis: Any, title: str, grid: Any) -> None:
    """Give a panel the common look: a title on the left, no frame, a faint grid along one axis."""
    axis.set_title(title, loc="left", weight="bold")
    axis.tick_params(colors=INK, length=0)
    grid.grid(visible=True, color=INK, alpha=0.3, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.set_frame_on(False)


def caption(environment: Mapping[str, Any]) -> str:
    """Name the machine, PostgreSQL and the day."""
    return (
        f"{environment['cpu']}, {environment['cores']} cores; PostgreSQL {environment['postgresql']} on the same "
        f"machine; {environment['date'][:10]}"
    )
