"""A client that speaks the protocol message by message, as no driver would."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import pyarrow as pa
from google.protobuf.message import Message
from pyarrow import flight

from flight_sql import pack
from flight_sql.envelope import unpack
from flight_sql.proto import flight_sql_pb2 as pb
from flight_sql.proto import session_pb2


class RawClient:
    """pyarrow's client, with messages packed and unpacked.

    Parameters
    ----------
    uri : str
    headers : mapping, optional
        Of every call.
    """

    def __init__(self, uri: str, headers: Mapping[str, str] | None = None) -> None:
        self.flight = flight.connect(uri)
        self.headers = dict(headers or {})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.flight.close()

    @property
    def options(self) -> flight.FlightCallOptions:
        return flight.FlightCallOptions(
            headers=[(name.encode(), value.encode()) for name, value in self.headers.items()], timeout=30
        )

    def info(self, command: Message | bytes) -> flight.FlightInfo:
        return self.flight.get_flight_info(descriptor(command), self.options)

    def schema(self, command: Message) -> pa.Schema:
        return self.flight.get_schema(descriptor(command), self.options).schema

    def get(self, ticket: Message | bytes) -> pa.Table:
        raw = ticket if isinstance(ticket, bytes) else pack(ticket)
        return self.flight.do_get(flight.Ticket(raw), self.options).read_all()

    def read(self, command: Message) -> pa.Table:
        """Plan a command and read its one endpoint."""
        [endpoint] = self.info(command).endpoints
        return self.get(endpoint.ticket.ticket)

    def query(self, sql: str) -> pa.Table:
        return self.read(pb.CommandStatementQuery(query=sql))

    def put(self, command: Message | bytes, rows: pa.RecordBatch | pa.Table) -> bytes | None:
        """Send rows; return the metadata that the server answers with."""
        writer, answers = self.flight.do_put(descriptor(command), rows.schema, self.options)
        with writer:
            for batch in rows.to_batches() if isinstance(rows, pa.Table) else [rows]:
                writer.write_batch(batch)
            writer.done_writing()
            answer = answers.read()
        return None if answer is None else answer.to_pybytes()

    def act(self, name: str, request: Message | bytes) -> list[bytes]:
        body = request if isinstance(request, bytes) else request.SerializeToString()
        results = self.flight.do_action(flight.Action(name, body), self.options)
        return [result.body.to_pybytes() for result in results]

    def prepare(self, sql: str) -> pb.ActionCreatePreparedStatementResult:
        request = pb.ActionCreatePreparedStatementRequest(query=sql)
        [body] = self.act("CreatePreparedStatement", pack(request))
        return pb.ActionCreatePreparedStatementResult.FromString(unpack(body).value)

    def bind(self, handle: bytes, rows: pa.RecordBatch | pa.Table) -> bytes:
        """Bind parameters; return the handle to use from now on."""
        answer = self.put(pb.CommandPreparedStatementQuery(prepared_statement_handle=handle), rows)
        return pb.DoPutPreparedStatementResult.FromString(answer or b"").prepared_statement_handle

    def run(self, handle: bytes) -> pa.Table:
        return self.read(pb.CommandPreparedStatementQuery(prepared_statement_handle=handle))

    def close_statement(self, handle: bytes) -> None:
        request = pb.ActionClosePreparedStatementRequest(prepared_statement_handle=handle)
        assert self.act("ClosePreparedStatement", pack(request)) == []

    def session_options(self) -> dict[str, Any]:
        [body] = self.act("GetSessionOptions", session_pb2.GetSessionOptionsRequest())
        found = session_pb2.GetSessionOptionsResult.FromString(body).session_options
        return {name: getattr(value, value.WhichOneof("option_value")) for name, value in found.items()}


def descriptor(command: Message | bytes) -> flight.FlightDescriptor:
    return flight.FlightDescriptor.for_command(command if isinstance(command, bytes) else pack(command))
