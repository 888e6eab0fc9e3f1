"""Decode throughput by type: columns of one PostgreSQL type each, captured and decoded on one core."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmark import decoding
from demo.synthetic import NULLABLE

COLUMNS = 8


@dataclass(frozen=True)
class TypeFigures:
    """One type; a GB is 10⁹ bytes of the wire, framing included."""

    type: str
    wire_bytes: int
    gb_per_s: float
    ns_per_field: float


def measure(dsn: str, rows: int, passes: int) -> Iterator[TypeFigures]:
    """Yield the figures of each type of the data set of NULLs, here without any."""
    for kind, value in NULLABLE.items():
        columns = ", ".join(f"({value})::{kind} AS c{index}" for index in range(COLUMNS))
        sql = f"SELECT {columns} FROM generate_series(1::int8, {rows}) AS i"
        figures = decoding.measure_statement(dsn, sql, kind, "extended", passes)
        yield TypeFigures(kind, figures.wire_bytes, figures.both_gb_per_s, figures.decode_ns_per_field)
