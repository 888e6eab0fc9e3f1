"""The Flight service: each RPC parses, delegates to the pipeline, and returns."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pyarrow import flight

from flight_server.auth import MIDDLEWARE, Caller, CallerFactory
from flight_server.pipeline import Pipeline, Preview, schema_digest
from flight_server.request import MAX_REQUEST_BYTES, ReadRequest, parse_command, parse_path
from flight_server.status import hide_tracebacks, typed, typed_batches
from flight_server.tickets import PREFIX, TicketSigner
from kernels.errors import CancelledError, RequestError, UnsupportedError

INFO_ACTION = "info"
ACTIONS = {INFO_ACTION: "Facts about the server, as one JSON object."}


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
    ) -> None:
        self._pipeline = pipeline
        self._signer = signer
        self._info = info
        self._draining = threading.Event()
        self._stopping = threading.Event()
        self._streams = 0
        self._streams_changed = threading.Condition()
        hide_tracebacks()
        super().__init__(
            listen,
            tls_certificates=certificates,
            middleware={MIDDLEWARE: CallerFactory(token, self._draining)},
        )

    @typed
    def list_flights(self, context: flight.ServerCallContext, criteria: bytes) -> Iterator[flight.FlightInfo]:
        """List the relations the login may read; `criteria` is a LIKE pattern over ``schema.name``."""
        pattern = criteria.decode("utf-8", "replace") if criteria else "%"
        identity = _caller(context).identity
        infos = []
        for table, schema in self._pipeline.tables(pattern):
            path = (table.schema, table.name)
            preview = Preview(schema, table.estimated_rows, table.estimated_bytes)
            descriptor = flight.FlightDescriptor.for_path(*path)
            columns = None if table.whole else tuple(schema.names)
            request = ReadRequest(table=path, columns=columns)
            infos.append(self._flight_info(descriptor, request, preview, identity))
        return iter(infos)

    @typed
    def get_flight_info(
        self, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor
    ) -> flight.FlightInfo:
        """Describe a read and issue its ticket; nothing is executed."""
        caller = _caller(context)
        request = _parse_descriptor(descriptor, caller)
        return self._flight_info(descriptor, request, self._pipeline.preview(request), caller.identity)

    @typed
    def get_schema(
        self, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor
    ) -> flight.SchemaResult:
        """Return the Arrow schema of a read."""
        request = _parse_descriptor(descriptor, _caller(context))
        return flight.SchemaResult(self._pipeline.preview(request).schema)

    @typed
    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.FlightDataStream:
        """Stream the rows of a ticket, or of a command given in its place."""
        caller = _caller(context)
        digest = None
        if ticket.ticket.startswith(PREFIX):
            opened = self._signer.open(ticket.ticket, caller.identity)
            request, digest = opened.request, opened.schema_digest
        else:
            request = parse_command(ticket.ticket, caller.options)
        # The schema is known, and the stream counted, once the first step is done: the generator is then
        # started, so its clean-up runs whatever becomes of the call.
        steps = self._counted(request, self._check(context), digest)
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
        _caller(context)
        if action.type != INFO_ACTION:
            raise RequestError(f"unknown action {action.type!r}; known are: {', '.join(ACTIONS)}")
        return iter([json.dumps(self._info()).encode()])

    @typed
    def do_put(self, *_args: object) -> None:
        """Writing is not served."""
        raise UnsupportedError("this server only reads: DoPut is not supported")

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
    def streams(self) -> int:
        """Streams that are being served now."""
        return self._streams

    def _counted(self, request: ReadRequest, check: Callable[[], None], digest: str | None) -> Iterator[Any]:
        with self._stream():
            schema, batches = self._pipeline.read(request, check, digest)
            yield schema
            yield from batches

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
                raise CancelledError("the server is shutting down")

        return check

    def _flight_info(
        self, descriptor: flight.FlightDescriptor, request: ReadRequest, preview: Preview, identity: str
    ) -> flight.FlightInfo:
        sealed = self._signer.seal(request, identity, schema_digest(preview.schema))
        return flight.FlightInfo(
            preview.schema,
            descriptor,
            [flight.FlightEndpoint(sealed, [])],
            preview.estimated_rows,
            preview.estimated_bytes,
            False,
            json.dumps({"streams": preview.streams, "parts": preview.parts, "why": preview.why}),
        )


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
