"""THE table: what travels -> which message it is -> which method answers it, per RPC."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
from google.protobuf.message import Message

from flight_sql import schemas
from flight_sql.envelope import type_url
from flight_sql.proto import flight_sql_pb2 as pb
from flight_sql.proto import session_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command of a descriptor or a ticket, and the methods of the service it leads to.

    Parameters
    ----------
    message : type of Message
    schema : callable or None
        Makes the schema of a metadata command's result; its one method then answers every RPC.
    rows : str
        Returns a metadata command's result.
    plan, describe, read, put : str
        Answer GetFlightInfo, GetSchema, DoGet and DoPut; empty where the command has no business there.
    """

    message: type[Message]
    schema: Callable[[Any], pa.Schema] | None = None
    rows: str = ""
    plan: str = ""
    describe: str = ""
    read: str = ""
    put: str = ""


@dataclass(frozen=True, slots=True)
class ActionType:
    """An action.

    Parameters
    ----------
    name : str
    message : type of Message
        Of its body.
    method : str
        Of the service.
    packed : bool
        Whether body and result travel inside an Any: Flight SQL's own do, those of Flight do not.
    description : str
    """

    name: str
    message: type[Message]
    method: str
    description: str
    packed: bool = True


def _metadata(message: type[Message], rows: str, schema: pa.Schema) -> Command:
    return Command(message=message, rows=rows, schema=lambda _: schema)


def tables_schema(command: pb.CommandGetTables) -> pa.Schema:
    """Return the schema of CommandGetTables' result."""
    return schemas.TABLES_WITH_SCHEMA if command.include_schema else schemas.TABLES


COMMANDS: Final = (
    _metadata(pb.CommandGetSqlInfo, "sql_info", schemas.SQL_INFO),
    _metadata(pb.CommandGetXdbcTypeInfo, "xdbc_type_info", schemas.XDBC_TYPE_INFO),
    _metadata(pb.CommandGetCatalogs, "catalogs", schemas.CATALOGS),
    _metadata(pb.CommandGetDbSchemas, "db_schemas", schemas.DB_SCHEMAS),
    Command(message=pb.CommandGetTables, rows="tables", schema=tables_schema),
    _metadata(pb.CommandGetTableTypes, "table_types", schemas.TABLE_TYPES),
    _metadata(pb.CommandGetPrimaryKeys, "primary_keys", schemas.PRIMARY_KEYS),
    _metadata(pb.CommandGetExportedKeys, "exported_keys", schemas.FOREIGN_KEYS),
    _metadata(pb.CommandGetImportedKeys, "imported_keys", schemas.FOREIGN_KEYS),
    _metadata(pb.CommandGetCrossReference, "cross_reference", schemas.FOREIGN_KEYS),
    Command(message=pb.CommandStatementQuery, plan="plan_statement", describe="describe_statement"),
    Command(message=pb.TicketStatementQuery, read="read_statement"),
    Command(
        message=pb.CommandPreparedStatementQuery,
        plan="plan_prepared", describe="describe_prepared", read="read_prepared", put="bind_prepared",
    ),
    Command(message=pb.CommandStatementUpdate, put="update_statement"),
    Command(message=pb.CommandPreparedStatementUpdate, put="update_prepared"),
    Command(
        message=pb.CommandStatementSubstraitPlan,
        plan="plan_substrait", describe="describe_substrait", put="update_substrait",
    ),
    Command(message=pb.CommandStatementIngest, put="ingest"),
)  # fmt: skip

ACTIONS: Final = (
    ActionType(
        "CreatePreparedStatement", pb.ActionCreatePreparedStatementRequest, "create_prepared_statement",
        "Prepare a statement.",
    ),
    ActionType(
        "ClosePreparedStatement", pb.ActionClosePreparedStatementRequest, "close_prepared_statement",
        "Forget a prepared statement.",
    ),
    ActionType(
        "CreatePreparedSubstraitPlan", pb.ActionCreatePreparedSubstraitPlanRequest,
        "create_prepared_substrait_plan", "Prepare a Substrait plan.",
    ),
    ActionType(
        "BeginTransaction", pb.ActionBeginTransactionRequest, "begin_transaction", "Begin a transaction.",
    ),
    ActionType(
        "EndTransaction", pb.ActionEndTransactionRequest, "end_transaction",
        "Commit a transaction or roll it back.",
    ),
    ActionType("BeginSavepoint", pb.ActionBeginSavepointRequest, "begin_savepoint", "Set a savepoint."),
    ActionType(
        "EndSavepoint", pb.ActionEndSavepointRequest, "end_savepoint", "Release a savepoint or go back to it.",
    ),
    ActionType("CancelQuery", pb.ActionCancelQueryRequest, "cancel_query", "The older form of CancelFlightInfo."),
    ActionType(
        "SetSessionOptions", session_pb2.SetSessionOptionsRequest, "set_session_options",
        "Set options for the calls that follow.", packed=False,
    ),
    ActionType(
        "GetSessionOptions", session_pb2.GetSessionOptionsRequest, "get_session_options",
        "Return the options in force.", packed=False,
    ),
    ActionType(
        "CloseSession", session_pb2.CloseSessionRequest, "close_session", "Forget the session's options.",
        packed=False,
    ),
)  # fmt: skip

BY_TYPE_URL: Final = {type_url(command.message): command for command in COMMANDS}
BY_ACTION: Final = {action.name: action for action in ACTIONS}
