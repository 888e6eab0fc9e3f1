"""Queries: from a statement to a FlightInfo, and from its ticket to the rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa
from pyarrow import flight

from flight_server.options import parse_options
from flight_server.reading.pipeline import Pipeline
from flight_server.reading.planning import Preview, schema_digest
from flight_server.request import MAX_REQUEST_BYTES, ReadRequest
from flight_server.sql.bindings import Bindings, Rows
from flight_server.sql.calls import Call
from flight_server.sql.handles import Handle, ticket_for
from flight_server.sql.shelf import Shelf
from flight_server.sql.types import with_facts
from flight_server.sql.writes import Writes
from flight_server.tickets import Ticket, TicketSigner
from flight_sql import Stream
from kernels.errors import RequestError, TicketError

MAX_SCHEMAS = 4096
MAX_SCHEMA_BYTES = 32 << 20
IssueEndpoints = Callable[[ReadRequest, Preview, str], list[flight.FlightEndpoint]]
"""Seals the server's own tickets for a read."""


class Reads:
    """Plans and runs queries of Flight SQL clients on the server's pipeline.

    Parameters
    ----------
    pipeline : Pipeline
    signer : TicketSigner
    endpoints : callable
    writes : Writes or None
        None where the server only reads.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        signer: TicketSigner,
        endpoints: IssueEndpoints,
        writes: Writes | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.writes = writes
        self.signer = signer
        self.bindings = Bindings(signer.lifetime_s)
        # Of prepared statements, by identity and handle: where one is missing, PostgreSQL is asked again.
        self.schemas: Shelf[pa.Schema] = Shelf(MAX_SCHEMAS, MAX_SCHEMA_BYTES, signer.lifetime_s)
        self._endpoints = endpoints

    def request(self, call: Call, query: str) -> ReadRequest:
        """Return the request a statement stands for in a client's session.

        Raises
        ------
        RequestError
            It is empty or too long, or an option is wrong.
        """
        if not query.strip():
            raise RequestError("the statement is empty")
        if len(query.encode()) > MAX_REQUEST_BYTES:
            raise RequestError(f"the statement has more than {MAX_REQUEST_BYTES} bytes")
        return ReadRequest(sql=query, options=parse_options(call.options), search_path=call.session.schema)

    def plan(
        self,
        call: Call,
        handle: Handle,
        request: ReadRequest,
        descriptor: flight.FlightDescriptor,
    ) -> flight.FlightInfo:
        """Plan a query and issue its tickets.

        Parameters
        ----------
        call : Call
        handle : Handle
            What the tickets say beside the server's own.
        request : ReadRequest
        descriptor : FlightDescriptor
        """
        rows = self.bindings.rows(call.identity, handle)
        asked = _with_rows(request, rows, handle)
        if self.writes is not None:
            handle = replace(handle, transaction=self.writes.current(call, handle.transaction))
            if self.writes.may_write(asked):
                return self._executed(call, self.writes, handle, asked, descriptor)
            if self.writes.is_inside(call, handle.transaction):
                return self._inside(call, self.writes, handle, asked, descriptor)
        handle = replace(handle, transaction="")  # nothing was written in it: it sees what everybody sees
        known = self.schemas.get((call.identity, handle.id)) if handle.id else None
        if known is not None and request.options.endpoints == 1:
            preview = Preview(known, -1, -1, {})
        else:
            preview = self.pipeline.preview(asked, call.identity, hold=True)
            preview = replace(preview, schema=with_facts(preview.schema))
        carried = self.bindings.carry(call.identity, handle, rows)
        return flight.FlightInfo(
            preview.schema,
            descriptor,
            [_sql_endpoint(endpoint, carried) for endpoint in self._endpoints(request, preview, call.identity)],
            preview.estimated_rows,
            preview.estimated_bytes,
            request.options.ordered,
            json.dumps(preview.facts),
        )

    def _executed(
        self,
        call: Call,
        writes: Writes,
        handle: Handle,
        request: ReadRequest,
        descriptor: flight.FlightDescriptor,
    ) -> flight.FlightInfo:
        """Run a statement that writes, now: clients read results in the background, or never."""
        schema, name, rows = writes.execute(call, request, handle.transaction)
        endpoints = []
        if name:
            ticket = self._seal(call, request, schema)
            endpoints = [flight.FlightEndpoint(ticket_for(Handle(ticket=ticket, outcome=name)), [])]
        return flight.FlightInfo(with_facts(schema), descriptor, endpoints, rows, -1)

    def _inside(
        self,
        call: Call,
        writes: Writes,
        handle: Handle,
        request: ReadRequest,
        descriptor: flight.FlightDescriptor,
    ) -> flight.FlightInfo:
        """Plan a read that sees what its transaction has done."""
        schema = writes.describe(call, request, handle.transaction).result
        rows = self.bindings.rows(call.identity, handle)
        carried = self.bindings.carry(call.identity, handle, rows)
        carried = replace(carried, ticket=self._seal(call, request, schema))
        return flight.FlightInfo(
            with_facts(schema), descriptor, [flight.FlightEndpoint(ticket_for(carried), [])], -1, -1
        )

    def _seal(self, call: Call, request: ReadRequest, schema: pa.Schema) -> bytes:
        return self.signer.seal(replace(request, params=(), rows=None), call.identity, schema_digest(schema))

    def open(self, call: Call, handle: Handle) -> Ticket:
        """Check a handle's ticket.

        Raises
        ------
        TicketError
            It is forged, expired or another's.
        """
        return self.signer.open(handle.ticket, call.identity)

    def read(self, call: Call, handle: Handle) -> Stream:
        """Read what a handle stands for."""
        opened = self.open(call, handle)
        if self.writes is not None and handle.outcome:
            return self.writes.kept(call, handle.outcome)
        request = _with_rows(opened.request, self.bindings.rows(call.identity, handle), handle)
        if self.writes is not None and handle.transaction:
            return self.writes.read(call, request, handle.transaction, opened.schema_digest)
        try:
            return self.pipeline.read(request, call.check, opened.schema_digest, opened.share, call.identity)
        except TicketError:
            self.schemas.drop((call.identity, handle.id))  # whoever plans it again is told the new one
            raise


def _with_rows(request: ReadRequest, rows: Rows | None, handle: Handle) -> ReadRequest:
    """Return the request that runs a statement once for each row of parameters."""
    if handle.targets and rows is None:
        raise RequestError(f"the statement takes {len(handle.targets)} parameters: bind them first")
    if rows is not None and any(len(row) != len(handle.targets) for row in rows):
        raise RequestError(f"the statement takes {len(handle.targets)} parameters, another number is bound")
    request = replace(request, search_path=handle.schema)
    if handle.schema or (rows is not None and len(rows) != 1):
        # Results are kept by statement and parameters alone; a fresh one is never too old.
        request = replace(request, options=replace(request.options, max_age_s=0.0))
    if rows is None:
        return request
    if len(rows) == 1:
        return replace(request, params=rows[0])
    return replace(request, params=rows[0] if rows else (None,) * len(handle.targets), rows=rows)


def _sql_endpoint(endpoint: flight.FlightEndpoint, handle: Handle) -> flight.FlightEndpoint:
    ticket = ticket_for(replace(handle, ticket=endpoint.ticket.ticket))
    # Parameters that are kept here are known nowhere else: no location means the server that was asked.
    return flight.FlightEndpoint(ticket, [] if handle.kept else endpoint.locations, endpoint.expiration_time)
