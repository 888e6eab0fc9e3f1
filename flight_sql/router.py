"""RPCs -> the service's methods, through the table of commands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic

import pyarrow as pa
from google.protobuf.message import Message
from pyarrow import flight

from flight_sql import schemas
from flight_sql.commands import BY_ACTION, BY_TYPE_URL, Command
from flight_sql.envelope import pack, parse, type_url, unpack
from flight_sql.errors import ClientGoneError, MalformedError, UnsupportedError
from flight_sql.proto import flight_sql_pb2 as pb
from flight_sql.service import CallT, FlightSqlService, Stream

MAX_METADATA_BATCH_BYTES = 1 << 20
"""Clients' limits for a message begin at 4 MiB."""


class Router(Generic[CallT]):
    """Leads each RPC whose payload `is_packed` to one method of a service.

    Parameters
    ----------
    service : FlightSqlService

    Every method raises MalformedError for bytes that are no message, UnsupportedError for commands that are
    unknown or have no business in that RPC, ClientGoneError where an outcome cannot be told any more, and
    whatever the service raises.
    """

    def __init__(self, service: FlightSqlService[CallT]) -> None:
        self._service = service

    def get_flight_info(self, call: CallT, descriptor: flight.FlightDescriptor) -> flight.FlightInfo:
        """Plan a query, or say where a metadata command's result is: here, under the command itself."""
        command, message = _command(descriptor.command)
        if command.schema is None:
            return self._method(command, command.plan, "GetFlightInfo")(call, message, descriptor)
        endpoint = flight.FlightEndpoint(descriptor.command, [])
        return flight.FlightInfo(command.schema(message), descriptor, [endpoint], -1, -1)

    def get_schema(self, call: CallT, descriptor: flight.FlightDescriptor) -> pa.Schema:
        """Return the schema of a command's result."""
        command, message = _command(descriptor.command)
        if command.schema is None:
            return self._method(command, command.describe, "GetSchema")(call, message)
        return command.schema(message)

    def do_get(self, call: CallT, ticket: bytes) -> Stream:
        """Read a ticket: schema and batches."""
        command, message = _command(ticket)
        if command.schema is None:
            stream: Stream = self._method(command, command.read, "DoGet")(call, message)
            return stream
        table = self._method(command, command.rows, "DoGet")(call, message)
        schema = command.schema(message)
        if table.schema != schema:
            raise TypeError(f"{command.rows} returned {table.schema}, clients expect {schema}")
        return schema, iter(schemas.batches(table, MAX_METADATA_BATCH_BYTES))

    def do_put(
        self,
        call: CallT,
        descriptor: flight.FlightDescriptor,
        reader: flight.MetadataRecordBatchReader,
        writer: flight.FlightMetadataWriter,
    ) -> None:
        """Bind parameters, or run what writes, and answer with one message."""
        command, message = _command(descriptor.command)
        method = self._method(command, command.put, "DoPut")
        takes_rows = command.message not in (pb.CommandStatementUpdate, pb.CommandStatementSubstraitPlan)
        answer = method(call, message, reader) if takes_rows else method(call, message)
        if command.message is not pb.CommandPreparedStatementQuery:
            _tell(writer, pb.DoPutUpdateResult(record_count=answer))
        elif answer is not None:
            _tell(writer, pb.DoPutPreparedStatementResult(prepared_statement_handle=answer))

    def do_action(self, call: CallT, name: str, body: bytes) -> Iterator[bytes]:
        """Run one of the actions of `flight_sql.commands`."""
        action = BY_ACTION.get(name)
        if action is None:
            raise UnsupportedError(f"unknown action {name!r}")
        if action.packed:
            body = _content(body, action.message)
        result: Message | None = getattr(self._service, action.method)(call, parse(action.message, body))
        if result is None:
            return iter(())
        return iter((pack(result) if action.packed else bytes(result.SerializeToString()),))

    def _method(self, command: Command, name: str, rpc: str) -> Any:
        if not name:
            raise UnsupportedError(f"{command.message.DESCRIPTOR.name} has no meaning in {rpc}")
        return getattr(self._service, name)


def _tell(writer: flight.FlightMetadataWriter, outcome: Message) -> None:
    try:
        writer.write(outcome.SerializeToString())
    except OSError as failure:
        raise ClientGoneError("the client went away before it was told the outcome") from failure


def _command(raw: bytes) -> tuple[Command, Message]:
    packed = unpack(raw)
    command = BY_TYPE_URL.get(packed.type_url)
    if command is None:
        raise UnsupportedError(f"unknown command {packed.type_url!r}")
    return command, parse(command.message, packed.value)


def _content(body: bytes, kind: type[Message]) -> bytes:
    packed = unpack(body)
    if packed.type_url != type_url(kind):
        raise MalformedError(f"the action's body is a {packed.type_url!r}, not a {type_url(kind)!r}")
    return packed.value
