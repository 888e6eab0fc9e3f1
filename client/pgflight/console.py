"""What the command line shows: tables, progress and errors, on terminals and in pipes."""

import csv
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich import box, filesize
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from pgflight.reader import Progress as Read

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

# "Flight returned … error, with message: " before the server's words and its code and contexts behind them.
_WRAPPED = re.compile(
    r"(?:Flight [\w ]+, with message: )?(.*?)"
    r"(?:\. Detail: (?:\w+|Python exception: .*?))?(?:\. gRPC client debug context: .*)?",
    re.DOTALL,
)
_READABLE_WIDTH = 24
Row = Sequence[str | None]


def on_terminal() -> bool:
    """Whether a person reads stdout; unlike rich's own answer, FORCE_COLOR does not change it."""
    return sys.stdout.isatty()


def fail(error: BaseException) -> None:
    """Show an error in one line on stderr."""
    message = " ".join(error_text(error).split())
    err.print(Text.assemble(("error: ", "bold red"), (printable(message), "red")), soft_wrap=True)


def error_text(error: BaseException) -> str:
    """Return the server's own words, without what gRPC and Flight wrap around them."""
    match = _WRAPPED.fullmatch(str(error))
    return (match and match[1]) or type(error).__name__


def note(message: str) -> None:
    """Say something beside the output, on stderr."""
    err.print(Text(printable(message)), style="dim", soft_wrap=True)


def printable(text: str) -> str:
    """Escape control characters: what a database holds must not steer the terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def show(columns: Sequence[str], rows: Iterable[Row], numbers: Sequence[bool] | None = None) -> None:
    """Print a table on a terminal, CSV in a pipe; `numbers` says which columns are aligned to the right."""
    if on_terminal():
        show_table(columns, rows, numbers)
        return
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)


def show_table(columns: Sequence[str], rows: Iterable[Row], numbers: Sequence[bool] | None = None) -> None:
    """Print a table, or one line a value where the rows are too wide for one."""
    cells = [[_cell(value) for value in row] for row in rows]
    names = [Text(printable(name), style="bold") for name in columns]
    if cells and _readable_width(names, cells) > out.width:
        _show_records(names, cells)
        return
    table = Table(box=box.SIMPLE_HEAD)
    for index, name in enumerate(names):
        right = numbers is not None and numbers[index]
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in cells:
        table.add_row(*row)
    out.print(table)


def show_json(value: Any) -> None:
    """Print JSON, coloured on a terminal."""
    out.print_json(json.dumps(value))


@contextmanager
def progress(visible: bool) -> Iterator[Callable[[Read], None]]:
    """Show rows, bytes and rate on stderr while a result is read; gives the reader's callback."""
    if not visible or not sys.stderr.isatty():
        yield lambda _: None
        return
    bar = Progress(
        SpinnerColumn(),
        BarColumn(),
        TextColumn("{task.completed:,.0f} rows"),
        TextColumn("{task.fields[size]}"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        console=err,
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=None, size="", rate="")
        yield lambda read: _advance(bar, task, read)


def _advance(bar: Progress, task: TaskID, read: Read) -> None:
    elapsed_s = bar.tasks[0].elapsed
    bar.update(
        task,
        completed=read.rows,
        total=max(read.estimated_rows, read.rows) if read.estimated_rows else None,
        size=filesize.decimal(read.bytes),
        rate=f"{filesize.decimal(int(read.bytes / elapsed_s))}/s" if elapsed_s else "",
    )


def _readable_width(names: list[Text], cells: list[list[Text]]) -> int:
    """Return the width below which a table's columns become too narrow to read."""
    columns = zip(names, *cells, strict=True)
    return sum(min(_READABLE_WIDTH, max(cell.cell_len for cell in column)) + 2 for column in columns)


def _show_records(names: list[Text], cells: list[list[Text]]) -> None:
    """Print one line a value, under the number of its row."""
    for number, row in enumerate(cells, start=1):
        out.rule(Text(f"row {number}", style="dim"), align="left", style="dim")
        record = Table.grid(padding=(0, 2))
        record.add_column(no_wrap=True)
        record.add_column(overflow="fold")
        for name, cell in zip(names, row, strict=True):
            record.add_row(name, cell)
        out.print(record)


def _cell(value: str | None) -> Text:
    return Text("NULL", style="dim") if value is None else Text(printable(value))
