"""What a Flight SQL server can be asked: one method per command, unsupported until a server overrides it."""
# ruff: noqa: ARG002 (the arguments are for those who override)

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, NoReturn, TypeVar

import pyarrow as pa
from pyarrow import flight

from flight_sql.errors import UnsupportedError
from flight_sql.proto import flight_sql_pb2 as pb
from flight_sql.proto import session_pb2

CallT = TypeVar("CallT")
"""What a server knows of one call: who calls, how to notice that the client has gone."""
Stream = tuple[pa.Schema, Iterator[pa.RecordBatch]]


class FlightSqlService(Generic[CallT]):
    """Answers the commands of Flight SQL; the router calls one method for each.

    Messages arrive parsed.  Metadata methods return a table whose schema is the one of `flight_sql.schemas`, in
    the order the protocol asks for.  A server overrides what it does; `unsupported` answers the rest.
    """

    def unsupported(self, what: str) -> NoReturn:
        """Refuse a command by its name."""
        raise UnsupportedError(f"{what} is not supported")

    # Statements

    def plan_statement(
        self, call: CallT, command: pb.CommandStatementQuery, descriptor: flight.FlightDescriptor
    ) -> flight.FlightInfo:
        """Plan a query: schema, and endpoints whose tickets are packed TicketStatementQuery."""
        self.unsupported("CommandStatementQuery")

    def describe_statement(self, call: CallT, command: pb.CommandStatementQuery) -> pa.Schema:
        """Return the schema of a query's result."""
        self.unsupported("CommandStatementQuery")

    def read_statement(self, call: CallT, ticket: pb.TicketStatementQuery) -> Stream:
        """Read what a ticket of `plan_statement` names."""
        self.unsupported("TicketStatementQuery")

    def update_statement(self, call: CallT, command: pb.CommandStatementUpdate) -> int:
        """Run a statement that writes; return the number of rows, -1 where unknown."""
        self.unsupported("CommandStatementUpdate")

    def plan_substrait(
        self, call: CallT, command: pb.CommandStatementSubstraitPlan, descriptor: flight.FlightDescriptor
    ) -> flight.FlightInfo:
        """Plan a Substrait plan that returns rows."""
        self.unsupported("CommandStatementSubstraitPlan")

    def describe_substrait(self, call: CallT, command: pb.CommandStatementSubstraitPlan) -> pa.Schema:
        """Return the schema of a Substrait plan's result."""
        self.unsupported("CommandStatementSubstraitPlan")

    def update_substrait(self, call: CallT, command: pb.CommandStatementSubstraitPlan) -> int:
        """Run a Substrait plan that writes; return the number of rows."""
        self.unsupported("CommandStatementSubstraitPlan")

    def ingest(
        self, call: CallT, command: pb.CommandStatementIngest, reader: flight.MetadataRecordBatchReader
    ) -> int:
        """Load the batches of `reader` into a table; return the number of rows."""
        self.unsupported("CommandStatementIngest")

    # Prepared statements

    def create_prepared_statement(
        self, call: CallT, request: pb.ActionCreatePreparedStatementRequest
    ) -> pb.ActionCreatePreparedStatementResult:
        """Prepare a statement."""
        self.unsupported("CreatePreparedStatement")

    def create_prepared_substrait_plan(
        self, call: CallT, request: pb.ActionCreatePreparedSubstraitPlanRequest
    ) -> pb.ActionCreatePreparedStatementResult:
        """Prepare a Substrait plan."""
        self.unsupported("CreatePreparedSubstraitPlan")

    def close_prepared_statement(self, call: CallT, request: pb.ActionClosePreparedStatementRequest) -> None:
        """Forget a prepared statement; one that is unknown is no error."""
        self.unsupported("ClosePreparedStatement")

    def bind_prepared(
        self,
        call: CallT,
        command: pb.CommandPreparedStatementQuery,
        reader: flight.MetadataRecordBatchReader,
    ) -> bytes | None:
        """Bind the rows of `reader` as parameters; return the handle to use from now on, if it is another."""
        self.unsupported("parameters of CommandPreparedStatementQuery")

    def plan_prepared(
        self, call: CallT, command: pb.CommandPreparedStatementQuery, descriptor: flight.FlightDescriptor
    ) -> flight.FlightInfo:
        """Plan a prepared query with the parameters bound to it."""
        self.unsupported("CommandPreparedStatementQuery")

    def describe_prepared(self, call: CallT, command: pb.CommandPreparedStatementQuery) -> pa.Schema:
        """Return the schema of a prepared query's result."""
        self.unsupported("CommandPreparedStatementQuery")

    def read_prepared(self, call: CallT, command: pb.CommandPreparedStatementQuery) -> Stream:
        """Read a prepared query whose endpoint names it by its own command."""
        self.unsupported("CommandPreparedStatementQuery")

    def update_prepared(
        self,
        call: CallT,
        command: pb.CommandPreparedStatementUpdate,
        reader: flight.MetadataRecordBatchReader,
    ) -> int:
        """Run a prepared statement that writes, once per row of `reader`; return the number of rows."""
        self.unsupported("CommandPreparedStatementUpdate")

    # Metadata

    def sql_info(self, call: CallT, command: pb.CommandGetSqlInfo) -> pa.Table:
        """Say what the server can do."""
        self.unsupported("CommandGetSqlInfo")

    def xdbc_type_info(self, call: CallT, command: pb.CommandGetXdbcTypeInfo) -> pa.Table:
        """List the data types, by data_type and type_name."""
        self.unsupported("CommandGetXdbcTypeInfo")

    def catalogs(self, call: CallT, command: pb.CommandGetCatalogs) -> pa.Table:
        """List the catalogs."""
        self.unsupported("CommandGetCatalogs")

    def db_schemas(self, call: CallT, command: pb.CommandGetDbSchemas) -> pa.Table:
        """List the schemas."""
        self.unsupported("CommandGetDbSchemas")

    def tables(self, call: CallT, command: pb.CommandGetTables) -> pa.Table:
        """List the tables, with their Arrow schemas if wanted."""
        self.unsupported("CommandGetTables")

    def table_types(self, call: CallT, command: pb.CommandGetTableTypes) -> pa.Table:
        """List the types of tables."""
        self.unsupported("CommandGetTableTypes")

    def primary_keys(self, call: CallT, command: pb.CommandGetPrimaryKeys) -> pa.Table:
        """List the columns of a table's primary key."""
        self.unsupported("CommandGetPrimaryKeys")

    def exported_keys(self, call: CallT, command: pb.CommandGetExportedKeys) -> pa.Table:
        """List the foreign keys that refer to a table."""
        self.unsupported("CommandGetExportedKeys")

    def imported_keys(self, call: CallT, command: pb.CommandGetImportedKeys) -> pa.Table:
        """List the foreign keys of a table."""
        self.unsupported("CommandGetImportedKeys")

    def cross_reference(self, call: CallT, command: pb.CommandGetCrossReference) -> pa.Table:
        """List the foreign keys of one table that refer to another."""
        self.unsupported("CommandGetCrossReference")

    # Transactions

    def begin_transaction(
        self, call: CallT, request: pb.ActionBeginTransactionRequest
    ) -> pb.ActionBeginTransactionResult:
        """Begin a transaction."""
        self.unsupported("BeginTransaction")

    def end_transaction(self, call: CallT, request: pb.ActionEndTransactionRequest) -> None:
        """Commit a transaction or roll it back."""
        self.unsupported("EndTransaction")

    def begin_savepoint(
        self, call: CallT, request: pb.ActionBeginSavepointRequest
    ) -> pb.ActionBeginSavepointResult:
        """Set a savepoint."""
        self.unsupported("BeginSavepoint")

    def end_savepoint(self, call: CallT, request: pb.ActionEndSavepointRequest) -> None:
        """Release a savepoint or go back to it."""
        self.unsupported("EndSavepoint")

    # Cancelling and sessions

    def cancel_query(self, call: CallT, request: pb.ActionCancelQueryRequest) -> pb.ActionCancelQueryResult:
        """Cancel what a FlightInfo stands for, as clients did before CancelFlightInfo."""
        self.unsupported("CancelQuery")

    def set_session_options(
        self, call: CallT, request: session_pb2.SetSessionOptionsRequest
    ) -> session_pb2.SetSessionOptionsResult:
        """Set options of the client's session."""
        self.unsupported("SetSessionOptions")

    def get_session_options(
        self, call: CallT, request: session_pb2.GetSessionOptionsRequest
    ) -> session_pb2.GetSessionOptionsResult:
        """Return the options of the client's session."""
        self.unsupported("GetSessionOptions")

    def close_session(
        self, call: CallT, request: session_pb2.CloseSessionRequest
    ) -> session_pb2.CloseSessionResult:
        """End the client's session."""
        self.unsupported("CloseSession")
