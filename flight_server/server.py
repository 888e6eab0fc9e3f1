"""The Flight service: each RPC parses, delegates to the pipeline, and returns."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import pyarrow as pa
from pyarrow import flight

from flight_server import actions
from flight_server.access import Access
from flight_server.auth.caller import MIDDLEWARE, Caller, CallerFactory
from flight_server.gpu.lending import LentBatch
from flight_server.options import parse_options
from flight_server.reading.pipeline import Pipeline
from flight_server.reading.planning import Preview, schema_digest
from flight_server.reading.snapshots import Held, Share
from flight_server.reading.streams import stream
from flight_server.request import MAX_REQUEST_BYTES, ReadRequest, parse_command, parse_path
from flight_server.sql import frontend as sql
from flight_server.sql.calls import Call
from flight_server.sql.handles import server_ticket
from flight_server.sql.transactions import TransactionLimits
from flight_server.status import hide_tracebacks, typed
from flight_server.tenants import Tenant, Tenants
from flight_server.tickets import PREFIX, TicketSigner
from kernels.errors import CancelledError, OverloadedError, RequestError, UnsupportedError
from transport.modes.moving import PINNED

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
    """Serves a database over Arrow Flight.  It listens as soon as it is constructed.

    Parameters
    ----------
    listen : str
        URI; port 0 takes a free one.
    access : Access
        Who is let in, and what is opened for them.
    signer : TicketSigner
    info : callable
        Returns what the ``info`` action answers.
    certificates : list of (bytes, bytes) or None
        PEM certificate chain and key.
    client_authority : bytes or None
        PEM certificates; clients must bring one that is signed by one of them.
    replicas : sequence of str
        URIs of all servers that share the signing key and the database, this one included.
    transactions : TransactionLimits, optional
        Of clients that write; None where the server only reads.
    share_memory : bool
        Write batches into memory that clients on this host offer, instead of sending them.
    """

    def __init__(
        self,
        listen: str,
        access: Access,
        signer: TicketSigner,
        *,
        info: Callable[[], dict[str, Any]],
        certificates: list[tuple[bytes, bytes]] | None = None,
        client_authority: bytes | None = None,
        replicas: Sequence[str] = (),
        transactions: TransactionLimits | None = None,
        share_memory: bool = True,
    ) -> None:
        self._signer = signer
        self._info = info
        self._replicas = tuple(replicas)
        self._snapshot_max_s = access.snapshot_max_s
        self._transactions = transactions
        self._share_memory = share_memory
        self._draining = threading.Event()
        self._stopping = threading.Event()
        self._streams = 0
        self._streams_changed = threading.Condition()
        self._callers = CallerFactory(access.backend, self._draining)
        self.tenants = Tenants(access.open_pipeline, self._open_sql, access.limits, access.vet, access.on_lost)
        hide_tracebacks()
        super().__init__(
            listen,
            auth_handler=self._callers.handshake,
            tls_certificates=certificates,
            verify_client=client_authority is not None,
            root_certificates=client_authority,
            middleware={MIDDLEWARE: self._callers},
        )

    @typed
    def list_flights(self, context: flight.ServerCallContext, criteria: bytes) -> Iterator[flight.FlightInfo]:
        """List the relations the login may read; `criteria` is a LIKE pattern over ``schema.name``."""
        pattern = criteria.decode("utf-8", "replace") if criteria else "%"
        infos = []
        with self._tenant(context) as (caller, tenant):
            for table, schema in tenant.pipeline.tables(pattern):
                path = (table.schema, table.name)
                preview = Preview(schema, table.estimated_rows, table.estimated_bytes, {})
                descriptor = flight.FlightDescriptor.for_path(*path)
                columns = None if table.whole else tuple(schema.names)
                request = ReadRequest(table=path, columns=columns)
                infos.append(self._flight_info(descriptor, request, preview, caller.identity))
        return iter(infos)

    @typed
    def get_flight_info(
        self, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor
    ) -> flight.FlightInfo:
        """Describe a read and issue its tickets; no row is read."""
        with self._tenant(context) as (caller, tenant):
            if sql.speaks(descriptor.command):
                return tenant.sql.get_flight_info(self._sql_call(context, caller, tenant), descriptor)
            request = _parse_descriptor(descriptor, caller)
            preview = tenant.pipeline.preview(request, caller.identity, hold=True)
            return self._flight_info(descriptor, request, preview, caller.identity)

    @typed
    def get_schema(
        self, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor
    ) -> flight.SchemaResult:
        """Return the Arrow schema of a read."""
        with self._tenant(context) as (caller, tenant):
            if sql.speaks(descriptor.command):
                call = self._sql_call(context, caller, tenant)
                return flight.SchemaResult(tenant.sql.get_schema(call, descriptor))
            request = _parse_descriptor(descriptor, caller)
            return flight.SchemaResult(tenant.pipeline.preview(request, caller.identity).schema)

    @typed
    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.FlightDataStream:
        """Stream the rows of a ticket, or of a command given in its place."""
        caller = self._callers.caller(context)
        if sql.speaks(ticket.ticket):
            steps = self._counted_sql(context, caller, ticket.ticket)
            return stream(next(steps), steps, parse_options(caller.options).compression)
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
        offered = caller.shared if self._share_memory else ""
        return stream(schema, steps, request.options.compression, offered)

    @typed
    def list_actions(self, context: flight.ServerCallContext) -> list[tuple[str, str]]:
        """List what `do_action` can do."""
        self._callers.caller(context)
        return list(ACTIONS.items())

    @typed
    def do_action(self, context: flight.ServerCallContext, action: flight.Action) -> Iterator[bytes]:
        """Answer an action."""
        body = action.body.to_pybytes()
        if len(body) > MAX_ACTION_BYTES:
            raise RequestError(f"the action's body is longer than {MAX_ACTION_BYTES} bytes")
        with self._tenant(context) as (caller, tenant):
            if action.type in sql.ACTIONS:
                # Within the tenant to the end: an iterator would still run when it may be closed.
                return iter(list(tenant.sql.do_action(self._sql_call(context, caller, tenant), action.type, body)))
            return iter([self._act(action.type, body, caller.identity, tenant.pipeline)])

    @typed
    def do_put(
        self, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor, reader: Any, writer: Any
    ) -> None:
        """Take the parameters of Flight SQL's statements; writing is not served."""
        if not sql.speaks(descriptor.command):
            raise UnsupportedError("this server only reads: DoPut is not supported")
        with self._tenant(context) as (caller, tenant):
            tenant.sql.do_put(self._sql_call(context, caller, tenant), descriptor, reader, writer)

    @typed
    def do_exchange(self, *_args: object) -> None:
        """Exchanges are not served."""
        raise UnsupportedError("DoExchange is not supported")

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
    def draining(self) -> bool:
        """Whether new calls are turned away."""
        return self._draining.is_set()

    @property
    def streams(self) -> int:
        """Streams that are being served now."""
        return self._streams

    def _act(self, name: str, body: bytes, identity: str, pipeline: Pipeline) -> bytes:
        """Carry out an action of the server's own."""
        if name == INFO_ACTION:
            return json.dumps(self._info()).encode()
        if name == actions.CANCEL:
            return actions.cancel_result(self._cancel(pipeline, actions.parse_cancel(body), identity))
        if name == actions.RENEW:
            return bytes(self._renew(pipeline, actions.parse_renew(body), identity).serialize())
        if name == SPOOL_LIST_ACTION:
            return json.dumps(pipeline.spooled.list(identity)).encode()
        if name == SPOOL_DROP_ACTION:
            dropped = pipeline.spooled.drop(identity, body.decode("utf-8", "replace") or None)
            return json.dumps({"dropped": dropped}).encode()
        raise RequestError(f"unknown action {name!r}; known are: {', '.join(ACTIONS)}")

    def _cancel(self, pipeline: Pipeline, info: flight.FlightInfo, identity: str) -> int:
        """End the leases of all endpoints; say whether there was one."""
        tickets = [self._signer.open(server_ticket(endpoint), identity) for endpoint in info.endpoints]
        leases = {ticket.share.lease.id: ticket.share.lease for ticket in tickets if ticket.share}
        ended = [pipeline.keeper.cancel(lease) for lease in leases.values()]
        return actions.CANCELLED if any(ended) else actions.NOT_CANCELLABLE

    def _renew(self, pipeline: Pipeline, endpoint: flight.FlightEndpoint, identity: str) -> flight.FlightEndpoint:
        """Return the endpoint with its new expiration time; the ticket itself is good to the lease's last end."""
        ticket = self._signer.open(server_ticket(endpoint), identity)
        if ticket.share is None:
            raise RequestError("the endpoint holds no snapshot: there is nothing to renew")
        held = pipeline.keeper.renew(ticket.share.lease)
        return flight.FlightEndpoint(endpoint.ticket, endpoint.locations, _end_of(held))

    def _counted(
        self,
        request: ReadRequest,
        check: Callable[[], None],
        digest: str | None,
        share: Share | None,
        caller: Caller,
    ) -> Iterator[Any]:
        with self._stream(), self.tenants.of(caller.identity) as tenant:
            told: dict[str, Any] = {}
            schema, batches = tenant.pipeline.read(
                request, check, digest, share, caller.identity, caller.lease, told=told
            )
            with closing(batches):  # before the stream counts as over
                yield schema
                for batch in batches:
                    yield batch.on_wire() if isinstance(batch, LentBatch) else batch
            if request.options.transport != PINNED and request.options.output == "host":
                yield _last(schema, told)

    def _counted_sql(self, context: flight.ServerCallContext, caller: Caller, ticket: bytes) -> Iterator[Any]:
        with self._stream(), self.tenants.of(caller.identity) as tenant:
            schema, batches = tenant.sql.do_get(self._sql_call(context, caller, tenant), ticket)
            yield schema
            yield from batches

    @contextmanager
    def _tenant(self, context: flight.ServerCallContext) -> Iterator[tuple[Caller, Tenant]]:
        """Find out who calls, and use what is theirs."""
        caller = self._callers.caller(context)
        with self.tenants.of(caller.identity) as tenant:
            yield caller, tenant

    def _open_sql(self, pipeline: Pipeline) -> sql.Frontend:
        return sql.Frontend(
            pipeline,
            self._signer,
            self._callers.logins,
            endpoints=self._endpoints,
            cancel=partial(self._cancel, pipeline),
            transactions=self._transactions,
        )

    def _sql_call(self, context: flight.ServerCallContext, caller: Caller, tenant: Tenant) -> Call:
        return tenant.sql.call(context, caller, self._check(context))

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
            lifetime_s = self._snapshot_max_s
            sealed = self._signer.seal(request, identity, digest, share=share, lifetime_s=lifetime_s)
            # Clients that take the first location are spread over all replicas.
            turn = index % max(1, len(self._replicas))
            locations = self._replicas[turn:] + self._replicas[:turn]
            endpoints.append(flight.FlightEndpoint(sealed, locations, _end_of(held)))
        return endpoints


def _last(schema: pa.Schema, told: dict[str, Any]) -> tuple[pa.RecordBatch, pa.Buffer]:
    """Make the last batch of a read that named its transport: no rows, and what was done."""
    facts = {name: told[name] for name in ("transport", "moved", "stages", "rows", "wire_bytes", "seconds")}
    empty = pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)
    return empty, pa.py_buffer(json.dumps(facts).encode())


def _end_of(held: Held) -> pa.TimestampScalar:
    """Return until when a snapshot is held, in UTC, in whole milliseconds: coarse clocks can hold it."""
    now = time.time()  # before it is asked how long from now: what is promised is rather too early than too late
    return pa.scalar(int((now + held.remaining_s) * 1000) * 1_000_000, pa.timestamp("ns", "UTC"))


def _parse_descriptor(descriptor: flight.FlightDescriptor, caller: Caller) -> ReadRequest:
    if descriptor.descriptor_type == flight.DescriptorType.PATH:
        if sum(len(part) for part in descriptor.path) > MAX_REQUEST_BYTES:
            raise RequestError(f"the path is longer than {MAX_REQUEST_BYTES} bytes")
        return parse_path(descriptor.path, caller.options)
    return parse_command(descriptor.command or b"", caller.options)
