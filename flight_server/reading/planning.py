"""What is decided before a row is read: schema, estimates, and how the read is cut."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa

from flight_server.reading import statement
from flight_server.reading.snapshots import Held
from flight_server.reading.split import Division, Part, divide, shape_of
from flight_server.request import ReadRequest
from kernels.column import Column
from kernels.errors import TicketError
from kernels.plan import Plan, TypePolicy, plan
from transport.partition import PageRange, cut, share_out
from transport.session import Session

MAX_ATTEMPTS = 5
"""How often planning begins anew because DDL got between the snapshot and the locks."""

MAX_REMEMBERED = 512
MAX_REMEMBERED_COLUMNS = 64


@dataclass(frozen=True, slots=True)
class Preview:
    """What is known of a read before it is done.

    Parameters
    ----------
    schema : Schema
    estimated_rows, estimated_bytes : int
        -1 when unknown.
    facts : dict
        How it would be read, for people and for ``app_metadata``.
    held : Held or None
        The snapshot that is held for the endpoints.
    shares : tuple of tuple of PageRange
        What each endpoint reads; empty where there is one, that needs no snapshot.
    """

    schema: pa.Schema
    estimated_rows: int
    estimated_bytes: int
    facts: dict[str, Any]
    held: Held | None = None
    shares: tuple[tuple[PageRange, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A statement that a session has described, and how it is cut."""

    columns: tuple[Column, ...]
    plan: Plan
    division: Division


def prepare(session: Session, request: ReadRequest, streams: int) -> Prepared:
    """Describe and cut a statement under a snapshot that sees every relation it reads as it is."""
    for _ in range(MAX_ATTEMPTS):
        prepared = _prepare(session, request, streams)
        if not session.rewritten():
            break
        session.restart()  # DDL came between snapshot and lock; now the lock is held until it is read
    return prepared


def prepare_ranges(
    session: Session, request: ReadRequest, ranges: tuple[PageRange, ...], streams: int
) -> Prepared:
    """Describe a statement whose cutting was proven when its ticket was issued."""
    columns = describe(session, request)
    shape = shape_of(request, columns)
    cuts = cut(ranges, streams, ordered=request.options.ordered)
    parts = tuple(Part(index, shape.sql(part)) for index, part in enumerate(cuts))
    return Prepared(
        columns, plan(columns, request.options.types), Division(parts, streams, "a share of a snapshot")
    )


def shares_of(request: ReadRequest, prepared: Prepared) -> tuple[tuple[PageRange, ...], ...]:
    """Deal a statement that can be cut to as many endpoints as are wanted; empty where one is enough."""
    if not prepared.division.parts or request.options.endpoints < 2:
        return ()
    shares = share_out(list(prepared.division.leaves), request.options.endpoints)
    return tuple(tuple(share) for share in shares) if len(shares) > 1 else ()


def describe(session: Session, request: ReadRequest) -> tuple[Column, ...]:
    """Describe the request's statement; a relation read as it is keeps its NOT NULLs."""
    return session.describe(
        statement.select(request), parameters=len(request.params), trust_not_null=request.table is not None
    )


def estimates(session: Session, request: ReadRequest) -> tuple[int, int]:
    """Return the estimated (rows, bytes) of a request, -1 where unknown."""
    if request.table is None or not request.is_whole_relation:
        return -1, -1
    rows, size = session.estimate(statement.relation(request.table))
    return rows, size if request.columns is None else -1


def require_schema(planned: Plan, digest: str | None) -> None:
    """Raise if the schema is not the one whose digest a ticket promised."""
    if digest is not None and digest != schema_digest(planned.schema):
        raise TicketError("the schema has changed since the ticket was issued: ask for a new one")


def schema_digest(schema: pa.Schema) -> str:
    """Return a digest of names, types and nullability."""
    text = "\0".join(f"{field.name}\0{field.type}\0{field.nullable}" for field in schema)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def planned(columns: tuple[Column, ...], policy: TypePolicy) -> Plan:
    """Return how a result is decoded; what was decided for the same columns before, unless they are very many."""
    return _remembered(columns, policy) if len(columns) <= MAX_REMEMBERED_COLUMNS else plan(columns, policy)


_remembered = lru_cache(MAX_REMEMBERED)(plan)


def _prepare(session: Session, request: ReadRequest, streams: int) -> Prepared:
    columns = describe(session, request)
    return Prepared(columns, planned(columns, request.options.types), divide(session, request, columns, streams))
