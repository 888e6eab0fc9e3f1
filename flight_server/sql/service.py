"""PostgreSQL's answers to the commands of Flight SQL, one method each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NoReturn

import pyarrow as pa
from pyarrow import flight

from flight_server.options import parse_options
from flight_server.request import MAX_REQUEST_BYTES
from flight_server.sql import handles, info, options
from flight_server.sql.calls import Call
from flight_server.sql.describe import describe
from flight_server.sql.handles import Handle
from flight_server.sql.ingest import ingest
from flight_server.sql.metadata import Metadata
from flight_server.sql.prepared import LIFETIME_S, PreparedStatements
from flight_server.sql.reads import Reads
from flight_server.sql.types import with_facts
from flight_server.sql.writes import NO_PARAMETERS, Writes
from flight_sql import FlightSqlService, Stream
from flight_sql.info import sql_info
from flight_sql.proto import flight_sql_pb2 as pb
from flight_sql.proto import session_pb2
from kernels.errors import RequestError, UnsupportedError

Cancel = Callable[[flight.FlightInfo, str], int]
"""Cancels what a FlightInfo stands for; returns a CancelStatus, whose numbers are those of CancelResult."""


class PostgresService(FlightSqlService[Call]):
    """Reads, and lists what there is to read; writes where that is allowed, else refuses it by name.

    Parameters
    ----------
    reads : Reads
    cancel : callable
    """

    def __init__(self, reads: Reads, cancel: Cancel) -> None:
        self._reads = reads
        self._prepared = PreparedStatements(reads)
        self._metadata = Metadata(reads.pipeline)
        self._cancel = cancel

    def unsupported(self, what: str) -> NoReturn:
        """Refuse a command by its name."""
        if self._reads.writes is None:
            raise UnsupportedError(f"this server only reads, and only SQL: {what} is not supported")
        raise UnsupportedError(f"this server takes SQL alone: {what} is not supported")

    # Statements

    def plan_statement(
        self, call: Call, command: pb.CommandStatementQuery, descriptor: flight.FlightDescriptor
    ) -> flight.FlightInfo:
        """Plan a query."""
        request = self._reads.request(call, command.query)
        transaction = self._transaction(command.transaction_id)
        handle = Handle(ticket=b"", schema=call.session.schema, transaction=transaction)
        return self._reads.plan(call, handle, request, descriptor)

    def describe_statement(self, call: Call, command: pb.CommandStatementQuery) -> pa.Schema:
        """Return the schema of a query's result."""
        transaction = self._transaction(command.transaction_id)
        request = self._reads.request(call, command.query)
        if self._reads.writes is not None:
            return with_facts(self._reads.writes.describe(call, request, transaction).result)
        return with_facts(describe(self._reads.pipeline.sessions, request).result)

    def read_statement(self, call: Call, ticket: pb.TicketStatementQuery) -> Stream:
        """Read a ticket."""
        return self._reads.read(call, handles.decode(ticket.statement_handle))

    def update_statement(self, call: Call, command: pb.CommandStatementUpdate) -> int:
        """Run a statement that writes."""
        writes = self._writes("CommandStatementUpdate")
        request = self._reads.request(call, command.query)
        return writes.update(call, request, self._transaction(command.transaction_id), NO_PARAMETERS)

    def ingest(
        self, call: Call, command: pb.CommandStatementIngest, reader: flight.MetadataRecordBatchReader
    ) -> int:
        """Load batches into a table."""
        return ingest(call, self._writes("CommandStatementIngest"), command, reader)

    # Prepared statements

    def create_prepared_statement(
        self, call: Call, request: pb.ActionCreatePreparedStatementRequest
    ) -> pb.ActionCreatePreparedStatementResult:
        """Prepare a statement."""
        return self._prepared.create(call, request.query, self._transaction(request.transaction_id))

    def close_prepared_statement(self, call: Call, request: pb.ActionClosePreparedStatementRequest) -> None:
        """Forget a prepared query."""
        self._prepared.close(call, request.prepared_statement_handle)

    def bind_prepared(
        self, call: Call, command: pb.CommandPreparedStatementQuery, reader: flight.MetadataRecordBatchReader
    ) -> bytes:
        """Bind parameters."""
        return self._prepared.bind(call, command.prepared_statement_handle, _batches(reader, call))

    def plan_prepared(
        self, call: Call, command: pb.CommandPreparedStatementQuery, descriptor: flight.FlightDescriptor
    ) -> flight.FlightInfo:
        """Plan a prepared query."""
        return self._prepared.plan(call, command.prepared_statement_handle, descriptor)

    def describe_prepared(self, call: Call, command: pb.CommandPreparedStatementQuery) -> pa.Schema:
        """Return the schema of a prepared query's result."""
        return self._prepared.schema(call, command.prepared_statement_handle)

    def read_prepared(self, call: Call, command: pb.CommandPreparedStatementQuery) -> Stream:
        """Read a prepared query."""
        return self._prepared.read(call, command.prepared_statement_handle)

    def update_prepared(
        self, call: Call, command: pb.CommandPreparedStatementUpdate, reader: flight.MetadataRecordBatchReader
    ) -> int:
        """Run a prepared statement that writes."""
        writes = self._writes("CommandPreparedStatementUpdate")
        return self._prepared.update(call, writes, command.prepared_statement_handle, _batches(reader, call))

    # Transactions

    def begin_transaction(
        self,
        call: Call,
        request: pb.ActionBeginTransactionRequest,  # noqa: ARG002
    ) -> pb.ActionBeginTransactionResult:
        """Begin a transaction."""
        transactions = self._writes("BeginTransaction").transactions
        name = transactions.begin(call.identity, call.peer, call.session.schema)
        return pb.ActionBeginTransactionResult(transaction_id=name.encode())

    def end_transaction(self, call: Call, request: pb.ActionEndTransactionRequest) -> None:
        """Commit a transaction, or roll it back."""
        transactions = self._writes("EndTransaction").transactions
        commit = request.action == pb.ActionEndTransactionRequest.END_TRANSACTION_COMMIT
        if not commit and request.action != pb.ActionEndTransactionRequest.END_TRANSACTION_ROLLBACK:
            raise RequestError("a transaction is ended by a commit or a rollback")
        transactions.end(call.identity, _name(request.transaction_id), call.check, commit=commit)

    def begin_savepoint(
        self, call: Call, request: pb.ActionBeginSavepointRequest
    ) -> pb.ActionBeginSavepointResult:
        """Set a savepoint."""
        transactions = self._writes("BeginSavepoint").transactions
        name = transactions.savepoint(call.identity, _name(request.transaction_id), call.check)
        return pb.ActionBeginSavepointResult(savepoint_id=name.encode())

    def end_savepoint(self, call: Call, request: pb.ActionEndSavepointRequest) -> None:
        """Release a savepoint, or go back to it."""
        transactions = self._writes("EndSavepoint").transactions
        release = request.action == pb.ActionEndSavepointRequest.END_SAVEPOINT_RELEASE
        if not release and request.action != pb.ActionEndSavepointRequest.END_SAVEPOINT_ROLLBACK:
            raise RequestError("a savepoint is ended by a release or a rollback")
        transactions.end_savepoint(call.identity, _name(request.savepoint_id), call.check, release=release)

    # Metadata

    def sql_info(self, call: Call, command: pb.CommandGetSqlInfo) -> pa.Table:
        """Say what the server can do; PostgreSQL is asked only for what it alone knows."""
        version: str = ""
        keywords: tuple[str, ...] = ()
        if not command.info or info.FROM_DATABASE & set(command.info):
            found = self._metadata.facts(call.check)
            version, keywords = found.version, found.keywords
        known = info.values(
            version,
            keywords,
            handle_s=LIFETIME_S,
            statement_bytes=MAX_REQUEST_BYTES,
            writes=self._reads.writes is not None,
        )
        return sql_info(known, command.info)

    def xdbc_type_info(self, call: Call, command: pb.CommandGetXdbcTypeInfo) -> pa.Table:  # noqa: ARG002
        """List the data types."""
        return self._metadata.xdbc_type_info(command)

    def catalogs(self, call: Call, command: pb.CommandGetCatalogs) -> pa.Table:  # noqa: ARG002
        """List the one database."""
        return self._metadata.catalogs(call.check)

    def db_schemas(self, call: Call, command: pb.CommandGetDbSchemas) -> pa.Table:
        """List the schemas."""
        return self._metadata.db_schemas(command, call.check)

    def tables(self, call: Call, command: pb.CommandGetTables) -> pa.Table:
        """List the tables."""
        return self._metadata.tables(command, parse_options(call.options).types, call.check)

    def table_types(self, call: Call, command: pb.CommandGetTableTypes) -> pa.Table:  # noqa: ARG002
        """List the types of tables."""
        return self._metadata.table_types()

    def primary_keys(self, call: Call, command: pb.CommandGetPrimaryKeys) -> pa.Table:
        """List a primary key."""
        return self._metadata.primary_keys(command, call.check)

    def exported_keys(self, call: Call, command: pb.CommandGetExportedKeys) -> pa.Table:
        """List the foreign keys that refer to a table."""
        return self._metadata.exported_keys(command, call.check)

    def imported_keys(self, call: Call, command: pb.CommandGetImportedKeys) -> pa.Table:
        """List a table's foreign keys."""
        return self._metadata.imported_keys(command, call.check)

    def cross_reference(self, call: Call, command: pb.CommandGetCrossReference) -> pa.Table:
        """List the foreign keys between two tables."""
        return self._metadata.cross_reference(command, call.check)

    # Cancelling and sessions

    def cancel_query(self, call: Call, request: pb.ActionCancelQueryRequest) -> pb.ActionCancelQueryResult:
        """Cancel what a FlightInfo stands for."""
        try:
            planned = flight.FlightInfo.deserialize(request.info)
        except (pa.ArrowException, ValueError) as failure:
            raise RequestError("the request holds no FlightInfo") from failure
        status = self._cancel(planned, call.identity)
        return pb.ActionCancelQueryResult(result=pb.ActionCancelQueryResult.CancelResult.Name(status))

    def set_session_options(
        self, call: Call, request: session_pb2.SetSessionOptionsRequest
    ) -> session_pb2.SetSessionOptionsResult:
        """Set the session's options."""
        return options.set_options(call, request, self._metadata)

    def get_session_options(
        self,
        call: Call,
        request: session_pb2.GetSessionOptionsRequest,  # noqa: ARG002
    ) -> session_pb2.GetSessionOptionsResult:
        """Return the options in force."""
        return options.get_options(call, self._metadata)

    def close_session(
        self,
        call: Call,
        request: session_pb2.CloseSessionRequest,  # noqa: ARG002
    ) -> session_pb2.CloseSessionResult:
        """Forget the session's options."""
        return options.close(call)

    def _writes(self, what: str) -> Writes:
        if self._reads.writes is None:
            self.unsupported(what)
        return self._reads.writes

    def _transaction(self, name: bytes) -> str:
        """Return the transaction that a request names, empty where it names none."""
        if name:
            self._writes("a transaction of several statements")
        return _name(name)


def _name(raw: bytes) -> str:
    return raw.decode("ascii", "replace")


def _batches(reader: flight.MetadataRecordBatchReader, call: Call) -> Iterator[pa.RecordBatch]:
    for chunk in reader:
        call.check()
        if chunk.data is not None:
            yield chunk.data
