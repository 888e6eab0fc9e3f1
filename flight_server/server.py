"""The Flight service: each RPC parses, delegates to the pipeline, and returns."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
from pyarrow import flight

from flight_server import actions
from flight_server.auth import MIDDLEWARE, Caller, CallerFactory, OpenHandshake
from flight_server.lending import LentBatch
from flight_server.pipeline import Pipeline
from flight_server.planning import Preview, schema_digest
from flight_server.request import MAX_REQUEST_BYTES, ReadRequest, parse_command, parse_path
from flight_server.snapshots import Share
from flight_server.sql import frontend as sql
from flight_server.sql.calls import Call
from flight_server.sql.handles import server_ticket
from flight_server.sql.transactions import TransactionLimits
from flight_server.status import hide_tracebacks, typed, typed_batches
from flight_server.tickets import PREFIX, TicketSigner
from kernels.errors import CancelledError, OverloadedError, RequestError, UnsupportedError

INFO_ACTION = "info"
SPOOL_LIST_ACTION = "spool.list"
SPOOL_DROP_ACTION = "spool.drop"
ACTIONS = {
    INFO_ACTION: "Facts about the server, as one JSON object.",
    actions.CANCEL: "End the snapshot that a FlightInfo's endpoints read, and the reads under it.",
    actions.RENEW: "Hold the snapshot of an endpoint for longer.",
    SPOOL_LIST_ACTION: "Your results that are kept in the spool, as one JSON array.",
    SPOOL_DROP_ACTION: "Remove them, or the one whose key is the body.",
    **sql.ACTIONS,
}
MAX_ACTION_BYTES = 16 << 20
"""A FlightInfo of many endpoints holds as many tickets."""


class FlightServer(flight.FlightServerBase):
    """Serves one PostgreSQL login over Arrow Flight.  It listens as soon as it is constructed.

    Parameters
    ----------
    listen : str
        URI; port 0 takes a free one.
    pipeline : Pipeline
    signer : TicketSigner
    info : callable
        Returns what the ``info`` action answers.
    token : str or None
        Bearer token to ask for.
    certificates : list of (bytes, bytes) or None
        PEM certificate chain and key.
    replicas : sequence of str
        URIs of all servers that share the signing key and the database, this one included.
    transactions : TransactionLimits, optional
        Of clients that write; None where the server only reads.
    """

    def __init__(
        self,
        listen: str,
        pipeline: Pipeline,
        signer: TicketSigner,
        *,
        info: Callable[[], dict[str, Any]],
        token: str | None = None,
        certificates: list[tuple[bytes, bytes]] | None = None,
        replicas: Sequence[str] = (),
        transactions: TransactionLimits | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._signer = signer
        self._info = info
        self._replicas = tuple(replicas)
        self._draining = threading.Event()
        self._stopping = threading.Event()
        self._streams = 0
        self._streams_changed = threading.Condition()
        callers = CallerFactory(token, self._draining)
        self._sql = sql.Frontend(
            pipeline,
            signer,
            callers.logins,
            endpoints=self._endpoints,
            cancel=self._cancel,
            transactions=transactions,
        )
        hide_tracebacks()
        super().__init__(
            listen,
            auth_handler=OpenHandshake(),
            tls_certificates=certificates,
            middleware={MIDDLEWARE: callers},
        )

    @typed
    def list_flights(self, context: flight.ServerCallContext, criteria: bytes) -> Iterator[flight.FlightInfo]:
        """List the relations the login may read; `criteria` is a LIKE pattern over ``schema.name``."""
        pattern = criteria.decode("utf-8", "replace") if criteria else "%"
        identity = _caller(context).identity
        infos = []
        for table, schema in self._pipeline.tables(pattern):
            path = (table.schema, table.name)
            preview = Preview(schema, table.estimated_rows, table.estimated_bytes, {})
            descriptor = flight.FlightDescriptor.for_path(*path)
            columns = None if table.whole else tuple(schema.names)
            request = ReadRequest(table=path, columns=columns)
            infos.append(self._flight_info(descriptor, request, preview, identity))
        return iter(infos)

    @typed
    def get_flight_info(
        self, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor
    ) -> flight.FlightInfo:
        """Describe a read and issue its tickets; no row is read."""
        if sql.speaks(descriptor.command):
            return self._sql.get_flight_info(self._sql_call(context), descriptor)
        caller = _caller(context)
        request = _parse_descriptor(descriptor, caller)
        preview = self._pipeline.preview(request, caller.identity, hold=True)
        return self._flight_info(descriptor, request, preview, caller.identity)

    @typed
    def get_schema(
        self, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor
    ) -> flight.SchemaResult:
        """Return the Arrow schema of a read."""
        if sql.speaks(descriptor.command):
            return flight.SchemaResult(self._sql.get_schema(self._sql_call(context), descriptor))
        caller = _caller(context)
        request = _parse_descriptor(descriptor, caller)
        return flight.SchemaResult(self._pipeline.preview(request, caller.identity).schema)

    @typed
    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.FlightDataStream:
        """Stream the rows of a ticket, or of a command given in its place."""
        if sql.speaks(ticket.ticket):
            steps = self._counted_sql(self._sql_call(context), ticket.ticket)
            return flight.GeneratorStream(next(steps), typed_batches(steps))
        caller = _caller(context)
        digest = share = None
        if ticket.ticket.startswith(PREFIX):
            opened = self._signer.open(ticket.ticket, caller.identity)
            request, digest, share = opened.request, opened.schema_digest, opened.share
        else:
            request = parse_command(ticket.ticket, caller.options)
        # The schema is known, and the stream counted, once the first step is done: the generator is then
        # started, so its clean-up runs whatever becomes of the call.
        steps = self._counted(request, self._check(context), digest, share, caller)
        schema = next(steps)
        return flight.GeneratorStream(schema, typed_batches(steps))

    @typed
    def list_actions(self, context: flight.ServerCallContext) -> list[tuple[str, str]]:
        """List what `do_action` can do."""
        _caller(context)
        return list(ACTIONS.items())

    @typed
    def do_action(self, context: flight.ServerCallContext, action: flight.Action) -> Iterator[bytes]:
        """Answer an action."""
        identity = _caller(context).identity
        body = action.body.to_pybytes()
        if len(body) > MAX_ACTION_BYTES:
            raise RequestError(f"the action's body is longer than {MAX_ACTION_BYTES} bytes")
        if action.type in sql.ACTIONS:
            return self._sql.do_action(self._sql_call(context), action.type, body)
        if action.type == INFO_ACTION:
            return iter([json.dumps(self._info()).encode()])
        if action.type == actions.CANCEL:
            return iter([actions.cancel_result(self._cancel(actions.parse_cancel(body), identity))])
        if action.type == actions.RENEW:
            return iter([self._renew(actions.parse_renew(body), identity).serialize()])
        if action.type == SPOOL_LIST_ACTION:
            return iter([json.dumps(self._pipeline.spooled.list(identity)).encode()])
        if action.type == SPOOL_DROP_ACTION:
            dropped = self._pipeline.spooled.drop(identity, body.decode("utf-8", "replace") or None)
            return iter([json.dumps({"dropped": dropped}).encode()])
        raise RequestError(f"unknown action {action.type!r}; known are: {', '.join(ACTIONS)}")

    @typed
    def do_put(
        self, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor, reader: Any, writer: Any
    ) -> None:
        """Take the parameters of Flight SQL's statements; writing is not served."""
        if not sql.speaks(descriptor.command):
            raise UnsupportedError("this server only reads: DoPut is not supported")
        self._sql.do_put(self._sql_call(context), descriptor, reader, writer)

    @typed
    def do_exchange(self, *_args: object) -> None:
        """Exchanges are not served."""
        raise UnsupportedError("DoExchange is not supported")

    def roll_back(self) -> None:
        """Roll back the transactions that clients have not ended."""
        self._sql.close()

    def refuse_calls(self) -> None:
        """Turn new calls away from now on; running streams go on."""
        self._draining.set()

    def drain(self, grace_s: float) -> bool:
        """Let running streams finish.

        Returns
        -------
        bool
            Whether all had ended after `grace_s`; those that have not are told to stop.
        """
        with self._streams_changed:
            finished = self._streams_changed.wait_for(lambda: self._streams == 0, grace_s)
        self._stopping.set()
        return finished

    @property
    def streams(self) -> int:
        """Streams that are being served now."""
        return self._streams

    def _cancel(self, info: flight.FlightInfo, identity: str) -> int:
        """End the leases of all endpoints; say whether there was one."""
        tickets = [self._signer.open(server_ticket(endpoint), identity) for endpoint in info.endpoints]
        leases = {ticket.share.lease.id: ticket.share.lease for ticket in tickets if ticket.share}
        ended = [self._pipeline.keeper.cancel(lease) for lease in leases.values()]
        return actions.CANCELLED if any(ended) else actions.NOT_CANCELLABLE

    def _renew(self, endpoint: flight.FlightEndpoint, identity: str) -> flight.FlightEndpoint:
        """Return the endpoint with its new expiration time; the ticket itself is good to the lease's last end."""
        ticket = self._signer.open(server_ticket(endpoint), identity)
        if ticket.share is None:
            raise RequestError("the endpoint holds no snapshot: there is nothing to renew")
        held = self._pipeline.keeper.renew(ticket.share.lease)
        return flight.FlightEndpoint(endpoint.ticket, endpoint.locations, _time_in(held.remaining_s))

    def _counted(
        self,
        request: ReadRequest,
        check: Callable[[], None],
        digest: str | None,
        share: Share | None,
        caller: Caller,
    ) -> Iterator[Any]:
        with self._stream():
            schema, batches = self._pipeline.read(request, check, digest, share, caller.identity, caller.lease)
            yield schema
            for batch in batches:
                yield batch.on_wire() if isinstance(batch, LentBatch) else batch

    def _counted_sql(self, call: Call, ticket: bytes) -> Iterator[Any]:
        with self._stream():
            schema, batches = self._sql.do_get(call, ticket)
            yield schema
            yield from batches

    def _sql_call(self, context: flight.ServerCallContext) -> Call:
        return self._sql.call(context, _caller(context), self._check(context))

    @contextmanager
    def _stream(self) -> Iterator[None]:
        with self._streams_changed:
            self._streams += 1
        try:
            yield
        finally:
            with self._streams_changed:
                self._streams -= 1
                self._streams_changed.notify_all()

    def _check(self, context: flight.ServerCallContext) -> Callable[[], None]:
        """Make the callback that ends a stream; to be called on the call's own thread alone."""

        def check() -> None:
            if context.is_cancelled():
                raise CancelledError("the client cancelled the read or went away")
            if self._stopping.is_set():
                raise OverloadedError("the server is shutting down")

        return check

    def _flight_info(
        self, descriptor: flight.FlightDescriptor, request: ReadRequest, preview: Preview, identity: str
    ) -> flight.FlightInfo:
        return flight.FlightInfo(
            preview.schema,
            descriptor,
            self._endpoints(request, preview, identity),
            preview.estimated_rows,
            preview.estimated_bytes,
            request.options.ordered,
            json.dumps(preview.facts),
        )

    def _endpoints(self, request: ReadRequest, preview: Preview, identity: str) -> list[flight.FlightEndpoint]:
        """Issue one ticket, or one for each share of a held snapshot; each is good on every replica."""
        digest = schema_digest(preview.schema)
        if preview.held is None:
            return [flight.FlightEndpoint(self._signer.seal(request, identity, digest), self._replicas)]
        held, endpoints = preview.held, []
        for index, ranges in enumerate(preview.shares):
            share = Share(held.lease, ranges)
            lifetime_s = self._pipeline.keeper.limits.max_s
            sealed = self._signer.seal(request, identity, digest, share=share, lifetime_s=lifetime_s)
            # Clients that take the first location are spread over all replicas.
            turn = index % max(1, len(self._replicas))
            locations = self._replicas[turn:] + self._replicas[:turn]
            endpoints.append(flight.FlightEndpoint(sealed, locations, _time_in(held.remaining_s)))
        return endpoints


def _time_in(seconds: float) -> pa.TimestampScalar:
    """Return the moment so many seconds from now, in UTC, in whole milliseconds: coarse clocks can hold it."""
    return pa.scalar(int((time.time() + seconds) * 1000) * 1_000_000, pa.timestamp("ns", "UTC"))


def _caller(context: flight.ServerCallContext) -> Caller:
    caller = context.get_middleware(MIDDLEWARE)
    if not isinstance(caller, Caller):
        raise RequestError("the call did not pass the server's middleware")
    return caller


def _parse_descriptor(descriptor: flight.FlightDescriptor, caller: Caller) -> ReadRequest:
    if descriptor.descriptor_type == flight.DescriptorType.PATH:
        if sum(len(part) for part in descriptor.path) > MAX_REQUEST_BYTES:
            raise RequestError(f"the path is longer than {MAX_REQUEST_BYTES} bytes")
        return parse_path(descriptor.path, caller.options)
    return parse_command(descriptor.command or b"", caller.options)
