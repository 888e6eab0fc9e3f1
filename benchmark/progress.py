"""What a benchmark is doing right now, on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Steps:
    """A bar over steps that have names."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task
        self._begun = -1

    def of(self, total: int) -> None:
        """Say how many steps there are."""
        self._progress.update(self._task, total=total)

    def to(self, name: str) -> None:
        """Begin the next step."""
        self._begun += 1
        self._progress.update(self._task, completed=self._begun, step=name)


@contextmanager
def filling(console: Console, table: str, rows: int) -> Iterator[Callable[[int], None]]:
    """Show how many rows a table has; yield what to call with their number."""
    with _bar(console) as progress:
        task = progress.add_task(f"filling {table}", total=rows, step="")
        yield lambda done: progress.update(task, completed=done)


@contextmanager
def reading(console: Console, table: str) -> Iterator[Steps]:
    """Show who reads."""
    with _bar(console) as progress:
        yield Steps(progress, progress.add_task(f"reading {table}", total=None, step=""))


def _bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TextColumn("{task.fields[step]}"), console=console, transient=True)
