"""What PostgreSQL says of a statement before it runs: its parameters and its result, as Arrow."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from flight_server.reading import statement
from flight_server.reading.sessions import Sessions
from flight_server.request import ReadRequest
from kernels.column import Column
from kernels.errors import RequestError
from kernels.plan import plan
from kernels.registry import BY_OID
from transport.catalog import TypeInfo
from transport.session import Session

TEXT_OID = 25


@dataclass(frozen=True, slots=True)
class PreparedStatement:
    """A statement as PostgreSQL has parsed it.

    Parameters
    ----------
    targets : tuple of int
        OIDs of the parameters' types.
    parameters : Schema
        The parameters as Arrow.
    result : Schema
        The result as Arrow; without columns where the statement returns none.
    """

    targets: tuple[int, ...]
    parameters: pa.Schema
    result: pa.Schema


def describe(sessions: Sessions, request: ReadRequest) -> PreparedStatement:
    """Ask PostgreSQL for the parameters and the result of a statement that reads.

    Raises
    ------
    PostgresError
        PostgreSQL refuses the text.
    RequestError
        The statement returns no columns.
    """
    with sessions.open(request) as session:
        described = describe_in(session, request)
    if not len(described.result):
        raise RequestError("this server only reads, and the statement returns no columns")
    return described


def describe_in(session: Session, request: ReadRequest) -> PreparedStatement:
    """Describe a statement, of whatever kind, in a session's transaction."""
    targets, infos, columns = session.describe_any(statement.select(request))
    parameters = [
        _parameter(f"${number}", oid, info)
        for number, (oid, info) in enumerate(zip(targets, infos, strict=True), start=1)
    ]
    policy = request.options.types
    return PreparedStatement(targets, plan(parameters, policy).schema, plan(columns, policy).schema)


def columns_in(session: Session, sql: str) -> tuple[Column, ...]:
    """Return the columns of a statement's result, in a session's transaction."""
    return session.describe_any(sql)[2]


def _parameter(name: str, oid: int, info: TypeInfo) -> Column:
    """Describe a parameter; a type whose bytes only PostgreSQL understands is given as text."""
    if oid not in BY_OID and info.kind != "e":
        return Column(name, TEXT_OID, display_type=info.name)
    return Column(
        name, oid, type_name=info.name, display_type=info.name, kind=info.kind, category=info.category,
        send=info.send,
    )  # fmt: skip
