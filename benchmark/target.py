"""What every contestant is given, and what it hands out: the common ground of floors, pgflight and peers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self, TypeAlias, Union

if TYPE_CHECKING:
    # A contestant's process loads only what it measures with: imports count in its memory.
    import pyarrow as pa

WARM_ROWS = 1000
SAMPLE, SAMPLE_ROWS = "_sample", 2_000_000


@dataclass(frozen=True)
class Target:
    """What is to be read: all rows and columns of a table.

    Attributes
    ----------
    dsn
        PostgreSQL, as libpq keywords.
    uri
        The pgflight server in front of it.
    server_pid
        That server's process ID; None for contestants that do not use it.
    table
        The table's name.
    rows
        Its rows.
    streams
        Streams of a contestant that reads in parallel.
    options
        Of the reads of `benchmark.ours:chosen`.
    """

    dsn: str = field(repr=False)
    uri: str
    server_pid: int | None
    table: str
    rows: int
    streams: int
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sql(self) -> str:
        """The statement that everybody runs."""
        return f"SELECT * FROM {self.table}"

    @property
    def warm(self) -> Self:
        """The first rows of it, as a table of their own: to be read before the clock starts."""
        return replace(self, table=f"{self.table.removesuffix(SAMPLE)}_warm_up", rows=min(self.rows, WARM_ROWS))

    @property
    def sample(self) -> Self:
        """As many rows as are compared in reasonable time: all, or the first ones as a table of their own."""
        return self if self.rows <= SAMPLE_ROWS else replace(self, table=f"{self.table}{SAMPLE}", rows=SAMPLE_ROWS)


@dataclass(frozen=True)
class Drained:
    """What was received and not decoded: rows that PostgreSQL says it sent, bytes that came."""

    num_rows: int = 0
    wire_bytes: int = 0


Piece: TypeAlias = Union["pa.RecordBatch", "pa.Table", Drained]
"""What a read hands out, as soon as it has it."""

Read: TypeAlias = Callable[[Target], Iterator[Piece]]
"""Connects, asks and reads everything; nothing happens before the first piece is asked for."""
