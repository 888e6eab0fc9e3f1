"""Prepared statements: described once, run with any parameters, known to every replica by their handles."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import replace

import pyarrow as pa
from pyarrow import flight

from flight_server.reading.planning import schema_digest
from flight_server.sql import handles
from flight_server.sql.bindings import text_rows_of
from flight_server.sql.calls import Call
from flight_server.sql.describe import describe
from flight_server.sql.handles import Handle
from flight_server.sql.reads import Reads
from flight_server.sql.types import with_facts
from flight_server.sql.writes import NO_PARAMETERS, Writes
from flight_sql import Stream
from flight_sql.proto import flight_sql_pb2 as pb

LIFETIME_S = 7 * 86_400.0
"""Applications keep statements for as long as their connections."""
FIELD_BYTES = 512
"""About what a field of a schema takes."""


class PreparedStatements:
    """Prepares, binds and plans.

    Parameters
    ----------
    reads : Reads
    """

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    def create(self, call: Call, query: str, transaction: str = "") -> pb.ActionCreatePreparedStatementResult:
        """Prepare a statement, to be run in a transaction, or by itself."""
        request = self._reads.request(call, query)
        writes = self._reads.writes
        described = (
            describe(self._reads.pipeline.sessions, request)
            if writes is None
            else writes.describe(call, request, transaction)
        )
        digest = schema_digest(described.result)
        ticket = self._reads.signer.seal(request, call.identity, digest, lifetime_s=LIFETIME_S)
        handle = Handle(
            ticket=ticket,
            schema=call.session.schema,
            id=secrets.token_hex(8),
            targets=described.targets,
            transaction=transaction,
        )
        size = FIELD_BYTES * len(described.result)
        schema = with_facts(described.result)
        self._reads.schemas.put((call.identity, handle.id), schema, size)
        return pb.ActionCreatePreparedStatementResult(
            prepared_statement_handle=handle.encode(),
            dataset_schema=schema.serialize().to_pybytes(),
            parameter_schema=described.parameters.serialize().to_pybytes(),
            is_update=not len(described.result),
        )

    def close(self, call: Call, raw: bytes) -> None:
        """Forget what is kept for a handle."""
        handle = handles.decode(raw)
        self._reads.schemas.drop((call.identity, handle.id))
        self._reads.bindings.forget(call.identity, handle)

    def bind(self, call: Call, raw: bytes, batches: Iterable[pa.RecordBatch]) -> bytes:
        """Bind parameters; return the handle that stands for the statement with them."""
        handle = handles.decode(raw)
        self._reads.open(call, handle)
        return self._reads.bindings.bind(call.identity, handle, batches).encode()

    def plan(self, call: Call, raw: bytes, descriptor: flight.FlightDescriptor) -> flight.FlightInfo:
        """Plan the statement with the parameters bound last."""
        handle = handles.decode(raw)
        return self._reads.plan(call, handle, self._reads.open(call, handle).request, descriptor)

    def schema(self, call: Call, raw: bytes) -> pa.Schema:
        """Return the schema of the result; the parameters do not matter."""
        handle = handles.decode(raw)
        request = self._reads.open(call, handle).request
        known = self._reads.schemas.get((call.identity, handle.id))
        if known is None:
            request = replace(request, search_path=handle.schema)
            known = with_facts(describe(self._reads.pipeline.sessions, request).result)
        return known

    def update(self, call: Call, writes: Writes, raw: bytes, batches: Iterable[pa.RecordBatch]) -> int:
        """Run a statement that writes, once for each row of parameters."""
        handle = handles.decode(raw)
        request = replace(self._reads.open(call, handle).request, search_path=handle.schema)
        rows = text_rows_of(batches, handle.targets) if handle.targets else NO_PARAMETERS
        return writes.update(call, request, writes.current(call, handle.transaction), rows)

    def read(self, call: Call, raw: bytes) -> Stream:
        """Read the statement with the parameters bound last."""
        return self._reads.read(call, handles.decode(raw))
