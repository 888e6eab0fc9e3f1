"""What the demo shows: the first rows, the figures, and how to connect."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from demo.floor import Drained

SAMPLE_ROWS = 3
CELL_CHARACTERS = 14
NAME_CHARACTERS = 20

PYTHON = """\
import pgflight

client = pgflight.connect("{uri}")
table = client.query("{table}").to_arrow()
counts = client.query("SELECT count(*) FROM {table}").to_polars()
"""
SHELL = """\
pgflight query "SELECT * FROM {table} LIMIT 10" --uri {uri}
python -m demo.read {uri} {table}
"""


@dataclass(frozen=True)
class Figures:
    """What a read took, from the request to the last batch; bytes are those of Arrow memory."""

    rows: int
    batches: int
    bytes: int
    seconds: float
    first_batch_seconds: float


def sample(schema: pa.Schema, rows: Sequence[Sequence[str | None]]) -> Table:
    """Show the schema and the first rows, as text, together: a line for every column."""
    table = Table(title="Schema and first rows", title_justify="left", header_style="bold")
    table.add_column("column", style="cyan", no_wrap=True)
    table.add_column("Arrow type", style="green", no_wrap=True)
    for number, _ in enumerate(rows, 1):
        table.add_column(f"row {number}", justify="right", no_wrap=True)
    for index, field in enumerate(schema):
        name, kind = _cut(field.name, NAME_CHARACTERS), _cut(str(field.type), NAME_CHARACTERS)
        table.add_row(name, kind, *(_cell(row[index]) for row in rows))
    return table


def speed(figures: Figures) -> str:
    """Say in one line how much was read, and how fast."""
    rows_per_s = f"{_rate(figures.rows, figures.seconds)} rows/s"
    mb_per_s = f"{_rate(figures.bytes / 1e6, figures.seconds)} MB/s"
    return f"{figures.rows:,} rows in {figures.seconds:.2f} s: [bold]{rows_per_s}, {mb_per_s}[/]"


def summary(figures: Figures, floor: Drained) -> Table:
    """Set what arrived through pgflight beside PostgreSQL's own COPY stream, drained and dropped."""
    copied_mb = floor.bytes / 1e6
    table = Table(title="Through pgflight, and PostgreSQL alone", title_justify="left", header_style="bold")
    table.add_column("")
    table.add_column("pgflight → Arrow", justify="right", style="bold")
    table.add_column("raw COPY, not decoded", justify="right")
    table.add_row("seconds", f"{figures.seconds:.2f}", f"{floor.seconds:.2f}")
    table.add_row("rows/s", _rate(figures.rows, figures.seconds), _rate(figures.rows, floor.seconds))
    table.add_row("MB/s of COPY", _rate(copied_mb, figures.seconds), _rate(copied_mb, floor.seconds))
    table.add_row("rows", f"{figures.rows:,}", f"{figures.rows:,}")
    table.add_row("MB", f"{figures.bytes / 1e6:,.0f} of Arrow", f"{copied_mb:,.0f} of COPY")
    table.add_row("record batches", f"{figures.batches:,}", "")
    table.add_row("first batch after", f"{figures.first_batch_seconds * 1e3:.0f} ms", "")
    table.add_section()
    table.add_row("time, as a multiple of raw COPY", f"{figures.seconds / floor.seconds:.2f}", "1.00")
    return table


def how_to_connect(uri: str, table: str) -> RenderableType:
    """Show how to read the table from Python and from a shell."""
    content = Group(
        Syntax(PYTHON.format(uri=uri, table=table), "python", background_color="default"),
        Syntax(SHELL.format(uri=uri, table=table), "bash", background_color="default"),
    )
    return Panel(content, title="The server stays up: connect from another terminal", subtitle="Ctrl-C stops it")


def _cell(value: str | None) -> Text:
    return Text("NULL", style="dim") if value is None else _cut(value, CELL_CHARACTERS)


def _cut(text: str, characters: int) -> Text:
    shown = Text("".join(char if char.isprintable() else "·" for char in text))
    shown.truncate(characters, overflow="ellipsis")
    return shown


def _rate(amount: float, seconds: float) -> str:
    return f"{amount / seconds:,.0f}"
