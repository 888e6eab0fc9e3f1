"""Figures into documents: tables between markers are written anew from what ``bench --json`` wrote.

A document holds ``<!-- transports -->``, ``<!-- stages -->`` or ``<!-- types -->``, and ``<!-- end -->`` behind it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.by_type import TypeFigures
from benchmark.page import caption
from benchmark.transports import TransportEntry, TransportResult

MARKED = re.compile(r"(<!-- (\w+) -->\n?).*?(<!-- end -->)", re.DOTALL)


class MarkerError(LookupError):
    """The document asks for a table there is not, or for none at all."""


def fill(document: Path, figures: Mapping[str, Any]) -> None:
    """Write the tables that a document asks for.

    Raises
    ------
    MarkerError
        It asks for none, or for one that nobody makes.
    """
    text = document.read_text()
    if not MARKED.search(text):
        raise MarkerError(f"{document} has no marker such as <!-- transports -->")

    def table(match: re.Match[str]) -> str:
        if match[2] not in TABLES:
            raise MarkerError(f"{document} asks for {match[2]!r}: there are {', '.join(TABLES)}")
        lines = "\n".join(TABLES[match[2]](figures)).rstrip()
        return f"{match[1].rstrip()}\n\n{lines}\n\n{match[3]}"

    document.write_text(MARKED.sub(table, text))


def _transports(figures: Mapping[str, Any]) -> Iterator[str]:
    for result in _results(figures):
        yield f"`{result.dataset}`, {result.rows:,} rows, streams: {result.streams}; {caption(figures['environment'])}"
        yield ""
        yield from _head("", "seconds", "÷ floor", "server CPU s", "CPU s/GB received", "server MB, peak")
        for entry in result.entries:
            yield _row(entry.name, *_cells(result, entry))
        yield ""


def _stages(figures: Mapping[str, Any]) -> Iterator[str]:
    for result in _results(figures):
        reads = {entry.name: entry.read for entry in result.entries if entry.read is not None}
        stages = list(dict.fromkeys(stage for read in reads.values() for stage in read.stages))
        yield f"`{result.dataset}`: seconds on the clock / of the CPU, all streams together"
        yield ""
        yield from _head("", *stages)
        for name, read in reads.items():
            times = [read.stages.get(stage) for stage in stages]
            yield _row(
                name, *("" if one is None else f"{one['wall_s']:.2f} / {one['cpu_s']:.2f}" for one in times)
            )
        yield ""


def _types(figures: Mapping[str, Any]) -> Iterator[str]:
    yield from _head("type", "GB/s of the wire", "ns a field")
    for parts in figures["types"]:
        one = TypeFigures(**parts)
        yield _row(f"`{one.type}`", f"{one.gb_per_s:.1f}", f"{one.ns_per_field:.1f}")


TABLES: Mapping[str, Callable[[Mapping[str, Any]], Iterator[str]]] = {
    "transports": _transports,
    "stages": _stages,
    "types": _types,
}


def _results(figures: Mapping[str, Any]) -> Sequence[TransportResult]:
    return [TransportResult.from_json(parts) for parts in figures["transports"]]


def _cells(result: TransportResult, entry: TransportEntry) -> list[str]:
    per_gb, peak = entry.server_cpu_s_per_gb, entry.server_peak_bytes
    return [
        f"{entry.seconds:.2f}",
        f"{entry.seconds / result.floor_s:.2f}",
        "" if entry.server_cpu_s is None else f"{entry.server_cpu_s:.2f}",
        "" if per_gb is None else f"{per_gb:.2f}",
        "" if peak is None else f"{peak / 1e6:,.0f}",
    ]


def _head(*names: str) -> Iterator[str]:
    yield _row(*names)
    yield _row("---", *("---:" for _ in names[1:]))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
