"""Where the server hands over what speaks Flight SQL: sizes are checked, errors become the server's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
from pyarrow import flight

import flight_sql
from flight_server.auth.caller import Caller
from flight_server.auth.login import Logins
from flight_server.auth.state import SessionState
from flight_server.reading.pipeline import Pipeline
from flight_server.request import MAX_REQUEST_BYTES
from flight_server.sql.calls import Call
from flight_server.sql.handles import MAX_HANDLE_BYTES
from flight_server.sql.reads import IssueEndpoints, Reads
from flight_server.sql.service import Cancel, PostgresService
from flight_server.sql.transactions import TransactionLimits, Transactions
from flight_server.sql.writes import Writes
from flight_server.tickets import TicketSigner
from flight_sql.commands import ACTIONS as SQL_ACTIONS
from kernels.errors import CancelledError, RequestError, UnsupportedError

ACTIONS = {action.name: action.description for action in SQL_ACTIONS}
MAX_COMMAND_BYTES = MAX_REQUEST_BYTES + MAX_HANDLE_BYTES
"""A command holds a statement or a handle."""


def speaks(payload: bytes | None) -> bool:
    """Tell whether a descriptor's command or a ticket is Flight SQL's."""
    return payload is not None and flight_sql.is_packed(payload)


class Frontend:
    """Answers the RPCs whose payload `speaks` Flight SQL, and the actions that are in ACTIONS.

    Parameters
    ----------
    pipeline : Pipeline
    signer : TicketSigner
    logins : Logins
    endpoints : callable
        Issues the server's own tickets.
    cancel : callable
        Cancels what a FlightInfo stands for.
    transactions : TransactionLimits, optional
        None where the server only reads.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        signer: TicketSigner,
        logins: Logins,
        *,
        endpoints: IssueEndpoints,
        cancel: Cancel,
        transactions: TransactionLimits | None = None,
    ) -> None:
        self._transactions = writes = None
        if transactions is not None:
            self._transactions = Transactions(pipeline.sessions, transactions)
            writes = Writes(pipeline, self._transactions, signer.lifetime_s)
        reads = Reads(pipeline, signer, endpoints, writes)
        self._router = flight_sql.Router(PostgresService(reads, cancel))
        self._logins = logins

    @property
    def transactions(self) -> int:
        """Transactions that are open."""
        return 0 if self._transactions is None else len(self._transactions)

    def close(self) -> None:
        """Roll back the transactions that are open."""
        if self._transactions is not None:
            self._transactions.close()

    def call(self, context: flight.ServerCallContext, caller: Caller, check: Callable[[], None]) -> Call:
        """Return what the commands see of a call."""

        def keep(state: SessionState) -> None:
            # Clients keep cookies, or the newest bearer token, or neither; then the state is theirs to lose.
            context.add_header("set-cookie", state.to_cookie())
            context.add_header("authorization", self._logins.bearer(caller.identity, state, caller.expires_at))

        return Call(caller.identity, caller.session, caller.options, check, keep, context.peer())

    def get_flight_info(self, call: Call, descriptor: flight.FlightDescriptor) -> flight.FlightInfo:
        """Plan a command."""
        _require_short(descriptor.command)
        with _translated():
            return self._router.get_flight_info(call, descriptor)

    def get_schema(self, call: Call, descriptor: flight.FlightDescriptor) -> pa.Schema:
        """Return the schema of a command's result."""
        _require_short(descriptor.command)
        with _translated():
            return self._router.get_schema(call, descriptor)

    def do_get(self, call: Call, ticket: bytes) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """Read a ticket."""
        _require_short(ticket)
        with _translated():
            return self._router.do_get(call, ticket)

    def do_put(self, call: Call, descriptor: flight.FlightDescriptor, reader: Any, writer: Any) -> None:
        """Bind parameters, or write."""
        _require_short(descriptor.command)
        with _translated():
            self._router.do_put(call, descriptor, reader, writer)

    def do_action(self, call: Call, name: str, body: bytes) -> Iterator[bytes]:
        """Run an action."""
        with _translated():
            return self._router.do_action(call, name, body)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except flight_sql.UnsupportedError as failure:
        raise UnsupportedError(str(failure)) from failure
    except flight_sql.ClientGoneError as failure:
        raise CancelledError(str(failure)) from failure
    except flight_sql.FlightSqlError as failure:
        raise RequestError(str(failure)) from failure


def _require_short(raw: bytes) -> None:
    if len(raw) > MAX_COMMAND_BYTES:
        raise RequestError(f"the command has {len(raw)} bytes; at most {MAX_COMMAND_BYTES} are accepted")
