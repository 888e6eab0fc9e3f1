"""Parameters between DoPut and DoGet: in the handle where they are few, here where they are many."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pyarrow as pa

from flight_server.request import Row
from flight_server.sql.handles import MAX_CARRIED_BYTES, Handle
from flight_server.sql.parameters import size_of, text_rows
from flight_server.sql.shelf import Shelf
from kernels.errors import RequestError, TicketError

Rows = tuple[Row, ...]

MAX_BYTES = 16 << 20
"""Of one statement's parameters, in memory."""
STEP_VALUES = 1 << 16
MAX_KEPT = 1024
MAX_KEPT_BYTES = 64 << 20
"""Of all that is kept."""


class Bindings:
    """Keeps parameters for as long as a ticket is good.

    Parameters
    ----------
    lifetime_s : float
    """

    def __init__(self, lifetime_s: float) -> None:
        self._shelf: Shelf[Rows] = Shelf(MAX_KEPT, MAX_KEPT_BYTES, lifetime_s)

    def bind(self, identity: str, handle: Handle, batches: Iterable[pa.RecordBatch]) -> Handle:
        """Return a handle that stands for the statement with these parameters.

        The handle that was given stands for it as well, here: not every client takes the new one.

        Raises
        ------
        RequestError
            A parameter has no form in PostgreSQL, or there are too many or too few, or they are too large.
        """
        rows = text_rows_of(batches, handle.targets)
        if not handle.targets:
            return handle
        self._shelf.put(("statement", identity, handle.id), rows, _size(rows))
        return self.carry(identity, handle, rows)

    def rows(self, identity: str, handle: Handle) -> Rows | None:
        """Return the parameters that were bound to a handle, None where none were.

        Raises
        ------
        TicketError
            Another server keeps them, or nobody any more.
        """
        if handle.rows is not None:
            return handle.rows
        if handle.kept:
            kept = self._shelf.get(("rows", identity, handle.kept))
            if kept is None:
                raise TicketError("the parameters are kept elsewhere, or no longer: bind them again")
            return kept
        return self._shelf.get(("statement", identity, handle.id)) if handle.id else None

    def carry(self, identity: str, handle: Handle, rows: Rows | None) -> Handle:
        """Return the handle with these parameters, in itself or by a name under which they are kept."""
        if rows is None or _size(rows) <= MAX_CARRIED_BYTES:
            return _with(handle, rows, "")
        if handle.kept and self._shelf.get(("rows", identity, handle.kept)) is rows:
            return handle
        name = secrets.token_hex(8)
        self._shelf.put(("rows", identity, name), rows, _size(rows))
        return _with(handle, None, name)

    def forget(self, identity: str, handle: Handle) -> None:
        """Drop what is kept for a statement."""
        self._shelf.drop(("statement", identity, handle.id))
        self._shelf.drop(("rows", identity, handle.kept))


def _with(handle: Handle, rows: Rows | None, kept: str) -> Handle:
    return replace(handle, rows=rows, kept=kept)


def text_rows_of(batches: Iterable[pa.RecordBatch], targets: Sequence[int]) -> Rows:
    """Return the rows of parameters as text, within bounds.

    Raises
    ------
    RequestError
        One has no form in PostgreSQL, or there are too many or too few, or they are too large.
    """
    rows: list[Row] = []
    size = 0
    for batch in batches:
        if not targets and not batch.num_columns:
            continue
        # Nulls and encoded values take no room in the message: what they grow to is looked at step by step.
        step = max(1, STEP_VALUES // max(1, batch.num_columns))
        for begin in range(0, max(1, batch.num_rows), step):
            found = text_rows(batch.slice(begin, step), targets)
            size += _size(found)
            rows += found
            if size > MAX_BYTES:
                raise RequestError(f"the parameters take more than {MAX_BYTES} bytes: send fewer rows at once")
    return tuple(rows)


def _size(rows: Sequence[Row]) -> int:
    return sum(map(size_of, rows))
