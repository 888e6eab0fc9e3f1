"""How a transaction that reads begins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from transport.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How a session reads.

    Parameters
    ----------
    block_bytes : int
        Size of the block that is filled and decoded at once.
    max_row_bytes : int
        Largest row that is served.
    statement_timeout_s : float or None
        Passed to PostgreSQL; None for no limit.
    lock_timeout_s : float
        How long to wait for a lock that somebody's DDL holds.
    reader : str
        ``auto``, or one reader's name.
    parallel_query : bool
        Whether PostgreSQL may use parallel workers of its own.  A page range is read by one process: planned in
        parallel it would scan the whole table.
    idle_timeout_s : float or None
        PostgreSQL ends the session when it has been idle for so long; None for the server's own setting.
    patience_s : float
        How long a block that is not full may wait for more, after the first block.
    search_path : str
        The schema in which names without one are looked up; empty for the role's own path.
    """

    block_bytes: int = 1 << 20
    max_row_bytes: int = 256 << 20
    statement_timeout_s: float | None = None
    lock_timeout_s: float = 30.0
    reader: str = "auto"
    parallel_query: bool = True
    idle_timeout_s: float | None = None
    patience_s: float = 0.05
    search_path: str = ""

    @property
    def statement_ms(self) -> int:
        """`statement_timeout_s` as PostgreSQL takes it."""
        return 0 if self.statement_timeout_s is None else max(1, int(self.statement_timeout_s * 1000))

    @property
    def lock_ms(self) -> int:
        """`lock_timeout_s` as PostgreSQL takes it."""
        return int(self.lock_timeout_s * 1000)


def opening(options: SessionOptions, snapshot: Snapshot | None = None) -> tuple[str, ...]:
    """Return the statements that begin a transaction, READ ONLY and with one snapshot for all of it.

    The last one takes the snapshot: from then on READ ONLY cannot be undone from within a query.
    """
    begin = "begin isolation level repeatable read read only"
    settings = ", ".join(f"set_config('{name}', {value}, true)" for name, value in _settings(options))
    select = f"select {settings}"
    return (begin, select) if snapshot is None else (begin, snapshot.import_sql, select)


def _settings(options: SessionOptions) -> Iterator[tuple[str, str]]:
    yield "statement_timeout", f"'{options.statement_ms}'"
    yield "lock_timeout", f"'{options.lock_ms}'"
    if not options.parallel_query:
        yield "max_parallel_workers_per_gather", "'0'"
    if options.search_path:
        yield "search_path", literal(identifier(options.search_path))
    if options.idle_timeout_s is not None:
        yield "idle_in_transaction_session_timeout", f"'{max(1, int(options.idle_timeout_s * 1000))}'"


def identifier(name: str) -> str:
    """Quote an identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote a string; `ConnectionPool` sets standard_conforming_strings."""
    return "'" + text.replace("'", "''") + "'"
