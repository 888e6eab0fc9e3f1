"""What an export reads: every table under one snapshot, cut into parts of a file each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from flight_server.reading import statement
from flight_server.reading.planning import MAX_ATTEMPTS, describe, estimates
from flight_server.reading.split import divide, shape_of
from flight_server.request import ReadRequest, parse_command
from kernels.column import Column
from kernels.errors import OverloadedError, RequestError
from kernels.plan import Plan, plan
from transport.partition import PageRange, cut, share_out
from transport.session import Session

PAGE_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Part:
    """What becomes one file.

    Parameters
    ----------
    table : str
    index : int
        Among the table's parts.
    pages : str
        What it holds, for the manifest.
    statements : tuple of str
        One after the other they give its rows.
    plan : Plan
    """

    table: str
    index: int
    pages: str
    statements: tuple[str, ...]
    plan: Plan

    def path(self, suffix: str) -> str:
        """Return its file's place below the export's directory."""
        return f"{quote(self.table, safe='.')}/part-{self.index:05d}.{suffix}"


@dataclass(frozen=True, slots=True)
class TablePlan:
    """A table: its parts, and how many rows there may be (-1 when unknown)."""

    name: str
    parts: tuple[Part, ...]
    estimated_rows: int


def requests_of(tables: Sequence[str], options: dict[str, object]) -> dict[str, ReadRequest]:
    """Return a request for each table that is named, by its name.

    Raises
    ------
    RequestError
        A name is no name, or is there twice.
    """
    found = {}
    for name in tables:
        command = json.dumps({"table": name, "options": options})
        request = parse_command(command.encode(), {})
        spelled = ".".join(request.table or ())
        if spelled in found:
            raise RequestError(f"table {spelled!r} is named twice")
        found[spelled] = request
    return found


def plan_tables(session: Session, requests: dict[str, ReadRequest], file_bytes: int) -> list[TablePlan]:
    """Describe, lock and cut all tables under the session's snapshot.

    Raises
    ------
    OverloadedError
        DDL kept getting between the snapshot and the locks.
    """
    for _ in range(MAX_ATTEMPTS):
        planned = [_plan_table(session, name, request, file_bytes) for name, request in requests.items()]
        rewritten = session.rewritten()
        if not rewritten:
            return planned
        session.restart()
    raise OverloadedError(f"{rewritten[0]!r} is truncated or rewritten again and again: export again later")


def _plan_table(session: Session, name: str, request: ReadRequest, file_bytes: int) -> TablePlan:
    columns = describe(session, request)
    planned = plan(columns, request.options.types)
    rows, _ = estimates(session, request)
    # Two streams, so that it is looked at at all: what matters is whether it can be cut, and into what.
    division = divide(session, request, columns, 2)
    pages = sum(leaf.pages for leaf in division.leaves)
    count = -(-pages * PAGE_BYTES // file_bytes)
    if not division.parts or count < 2:
        whole = statement.with_casts(statement.select(request), planned.casts)
        return TablePlan(name, (Part(name, 0, "all", (whole,), planned),), rows)
    shares = share_out(list(division.leaves), count)
    parts = tuple(_part(name, index, request, columns, planned, share) for index, share in enumerate(shares))
    return TablePlan(name, parts, rows)


def _part(
    name: str,
    index: int,
    request: ReadRequest,
    columns: tuple[Column, ...],
    planned: Plan,
    share: list[PageRange],
) -> Part:
    shape = shape_of(request, columns)
    pages = ", ".join(f"{one.leaf.schema}.{one.leaf.name} {one.begin}-{_text(one.end)}" for one in share)
    ranges = cut(share, 1, ordered=True)
    statements = tuple(statement.with_casts(shape.sql(one), planned.casts) for one in ranges)
    return Part(name, index, pages, statements, planned)


def _text(end: int | None) -> str:
    return "" if end is None else str(end)
