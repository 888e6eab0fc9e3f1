"""The server's pipeline, for sessions in a schema of their own and statements run once per row of parameters."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from flight_server import statement
from flight_server.pipeline import Pipeline
from flight_server.request import ReadRequest
from flight_server.sql.repeated import RepeatingExecution
from kernels.column import Column
from kernels.errors import RequestError
from kernels.plan import plan
from kernels.registry import BY_OID
from transport.catalog import Connection, TypeInfo, describe_result
from transport.failures import require_ok, translated
from transport.pool import ConnectionPool

TEXT_OID = 25


@dataclass(frozen=True, slots=True)
class PreparedStatement:
    """What PostgreSQL says of a statement before it runs.

    Parameters
    ----------
    targets : tuple of int
        OIDs of the parameters' types.
    parameters : Schema
        The parameters as Arrow.
    result : Schema
        The result as Arrow.
    """

    targets: tuple[int, ...]
    parameters: pa.Schema
    result: pa.Schema


class SqlPipeline(Pipeline):
    """A pipeline that shares connections, memory, kernels and limits with the one it is made of.

    Parameters
    ----------
    other : Pipeline
    schema : str
        Where names without a schema are looked up; empty for the role's own path.
    """

    def __init__(self, other: Pipeline, schema: str = "") -> None:
        vars(self).update(vars(other))
        if schema:
            self._sessions = self._sessions.on(SchemaPool(self._sessions.pool, schema))
        self._execution = RepeatingExecution(self._execution, self._sessions)

    def within(self, schema: str) -> SqlPipeline:
        """Return the same pipeline for a session with that schema."""
        return SqlPipeline(self, schema) if schema else self

    def describe(self, request: ReadRequest) -> PreparedStatement:
        """Ask PostgreSQL for the parameters and the result of a statement.

        Raises
        ------
        PostgresError
            PostgreSQL refuses the text.
        RequestError
            The statement returns no columns.
        """
        text = statement.select(request)
        if "\0" in text:
            raise RequestError("the statement contains a zero byte")
        pool = self._sessions.pool
        connection = pool.take()[0]
        with self._sessions.open(request, connection), translated():
            require_ok(connection.pgconn.prepare(b"", text.encode()))
            described = require_ok(connection.pgconn.describe_prepared(b""))
            if described.nfields == 0:
                raise RequestError("this server only reads, and the statement returns no columns")
            targets = tuple(described.param_type(index) for index in range(described.nparams))
            infos = pool.types.look_up(connection, targets)
            columns = describe_result(connection, pool.types, described, trust_not_null=False)
        parameters = [_parameter(f"${number}", oid, infos[oid]) for number, oid in enumerate(targets, start=1)]
        policy = request.options.types
        return PreparedStatement(targets, plan(parameters, policy).schema, plan(columns, policy).schema)


class SchemaPool(ConnectionPool):
    """Lends another pool's connections with a search path; coming back, they forget it like all settings.

    Parameters
    ----------
    other : ConnectionPool
    schema : str
    """

    def __init__(self, other: ConnectionPool, schema: str) -> None:
        vars(self).update(vars(other))
        self._path = statement.quote(schema)

    def _open(self, count: int) -> list[Connection]:
        taken = super()._open(count)
        try:
            with translated():
                for connection in taken:
                    connection.execute("select pg_catalog.set_config('search_path', %s, false)", [self._path])
        except BaseException:
            for connection in taken:
                self.discard(connection)
            raise
        return taken


def _parameter(name: str, oid: int, info: TypeInfo) -> Column:
    """Describe a parameter; a type whose bytes only PostgreSQL understands is given as text."""
    if oid not in BY_OID and info.kind != "e":
        return Column(name, TEXT_OID, display_type=info.name)
    return Column(
        name, oid, type_name=info.name, display_type=info.name, kind=info.kind, category=info.category,
        send=info.send,
    )  # fmt: skip
