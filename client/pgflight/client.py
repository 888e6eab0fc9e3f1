"""The client: queries and tables of one pgflight server, and what the server says about itself."""

import json
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
from pyarrow import flight

from pgflight import request
from pgflight.connection import READ_OPTIONS, Connections, Settings, full_uri
from pgflight.device import LeaseConnections
from pgflight.memory import keep_freed_memory
from pgflight.partitions import Plan
from pgflight.reader import Calls, Reader, known
from pgflight.shared import BATCH_BYTES, BATCH_HEADER, SharedMemories


@dataclass(frozen=True)
class TableInfo:
    """A table that the server offers. The estimates are None where the server has none."""

    schema_name: str | None
    name: str
    columns: pa.Schema
    estimated_rows: int | None
    estimated_bytes: int | None


def connect(
    uri: str,
    *,
    token: str | None = None,
    user: str | None = None,
    password: str | None = None,
    allow_plaintext: bool = False,
    tls_root_certs: bytes | str | PathLike[str] | None = None,
    timeout_s: float | None = None,
    share_memory: bool = True,
    headers: Mapping[str, str] | None = None,
    **flight_options: Any,
) -> "Client":
    """Connect to a pgflight server. The connection is made by the first call.

    Parameters
    ----------
    uri
        ``grpc://host:port``, ``grpc+tls://host:port``, ``grpc+unix:///path`` or plain ``host:port``.
    token
        Sent as ``authorization: Bearer <token>``.
    user, password
        Sent as Basic credentials instead, for servers where PostgreSQL's logins count.
    allow_plaintext
        Send a password unencrypted to another host, where something else encrypts.
    tls_root_certs
        PEM certificates to trust: the bytes, or the path of a file. None: the system's.
    timeout_s
        Deadline of every call, in seconds; it covers the reading of a whole result. None: no deadline.
    share_memory
        Let a server on this host write batches into memory of this process, instead of sending them.
    headers
        Further headers for every call.
    **flight_options
        For ``pyarrow.flight.FlightClient``, such as ``cert_chain`` and ``private_key`` for mutual TLS.

    Raises
    ------
    ValueError
        The URI's scheme is unknown, the credentials do not make sense, or a password would cross the network
        unencrypted.
    """
    if (user is None) != (password is None) or (user is not None and token is not None):
        raise ValueError("give a token, or user and password")
    if user is not None and ":" in user:
        raise ValueError("a user name with a colon cannot be sent")
    keep_freed_memory()
    roots = tls_root_certs if isinstance(tls_root_certs, bytes | None) else Path(tls_root_certs)
    settings = Settings(
        full_uri(uri),
        token,
        user,
        password,
        allow_plaintext,
        roots,
        timeout_s,
        share_memory,
        headers or {},
        flight_options,
    )
    return Client(Connections(settings))


class Client:
    """A connection to a server, made by :func:`connect`. Safe to share between threads.

    Errors are pyarrow's own: ``pyarrow.flight.FlightError`` and ``pyarrow.ArrowInvalid``.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._leases = LeaseConnections()
        self._memories = SharedMemories(READ_OPTIONS) if connections.settings.may_share else None
        self._open_calls: weakref.WeakSet[Calls] = weakref.WeakSet()
        self._lock = threading.Lock()

    def query(self, query: str, params: Sequence[object] | None = None, **options: object) -> Reader:
        """Plan a query, or a whole table, and return its reader. No row is read yet.

        Parameters
        ----------
        query
            ``table``, ``schema.table`` (parts may be double-quoted), or else SQL.
        params
            Values for ``$1``, ``$2`` … of the SQL.
        **options
            Options of the server, such as ``profile="plain"`` or ``batch_bytes=1 << 20``; None means not given.
            The server refuses those that it does not know.
        """
        return self._plan(request.query_descriptor(query, params, options))

    def table(
        self,
        name: str,
        columns: Sequence[str] | None = None,
        where: str | None = None,
        limit: int | None = None,
        **options: object,
    ) -> Reader:
        """Plan the reading of a table and return its reader. No row is read yet.

        Parameters
        ----------
        name
            ``table`` or ``schema.table``; parts may be double-quoted.
        columns
            Names of the columns wanted; None: all.
        where
            A condition in SQL.
        limit
            Most rows to read.
        **options
            Options of the server, as in :meth:`query`.
        """
        return self._plan(request.table_descriptor(name, columns, where, limit, options))

    def plan(
        self,
        query: str,
        params: Sequence[object] | None = None,
        *,
        partitions: int = 8,
        columns: Sequence[str] | None = None,
        where: str | None = None,
        **options: object,
    ) -> Plan:
        """Deal a query or a table to partitions that other processes can read, all under one snapshot.

        Parameters
        ----------
        query, params
            As for :meth:`query`.
        partitions
            At most so many; what the server cannot cut has one.
        columns, where
            As for :meth:`table`; then `query` is a table's name.
        **options
            Options of the server; ``streams`` counts within a partition.
        """
        wanted = {"endpoints": partitions, **options}
        if columns is None and where is None:
            descriptor = request.query_descriptor(query, params, wanted)
        else:
            descriptor = request.table_descriptor(query, columns, where, None, wanted)
        info = self._home.get_flight_info(descriptor, self._call_options())
        return Plan(info, self._connections)

    def schema(self, query: str, params: Sequence[object] | None = None, **options: object) -> pa.Schema:
        """Return the Arrow schema that :meth:`query` with the same arguments would have."""
        descriptor = request.query_descriptor(query, params, options)
        return self._home.get_schema(descriptor, self._call_options()).schema

    def explain(self, query: str, params: Sequence[object] | None = None, **options: object) -> dict[str, Any]:
        """Return how the server would read a query now: streams, parts, and why so many; {} if it does not say."""
        descriptor = request.query_descriptor(query, params, options)
        said = self._home.get_flight_info(descriptor, self._call_options()).app_metadata
        facts: dict[str, Any] = json.loads(said) if said else {}
        return facts

    def tables(self, pattern: str | None = None) -> list[TableInfo]:
        """List the tables, or those whose ``schema.name`` is ``LIKE`` a pattern such as ``public.%``."""
        criteria = (pattern or "").encode()
        return [_table_info(info) for info in self._home.list_flights(criteria, self._call_options())]

    def info(self) -> dict[str, Any]:
        """Return what the server says about itself."""
        results = list(self._home.do_action(flight.Action("info", b""), self._call_options()))
        facts: dict[str, Any] = json.loads(results[0].body.to_pybytes())
        return facts

    def close(self) -> None:
        """Cancel every result that is being read, and close the connections.

        Batches in GPU memory stay until they are dropped.
        """
        with self._lock:
            open_calls = list(self._open_calls)
        for calls in open_calls:
            calls.cancel()
        self._leases.close()
        self._connections.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<pgflight.Client of {self._connections.settings.uri}>"

    @property
    def _home(self) -> flight.FlightClient:
        return self._connections.home

    def _call_options(self) -> flight.FlightCallOptions:
        return self._connections.settings.call_options()

    def _plan(self, descriptor: flight.FlightDescriptor) -> Reader:
        headers = {} if self._memories is None else {BATCH_HEADER: str(BATCH_BYTES)}
        info = self._home.get_flight_info(descriptor, self._connections.settings.call_options(headers))
        calls = Calls(info, self._connections.open)
        with self._lock:
            self._open_calls.add(calls)
        return Reader(calls, self._leases, self._memories)


def _table_info(info: flight.FlightInfo) -> TableInfo:
    *schema, name = [part.decode() for part in info.descriptor.path]
    return TableInfo(
        schema_name=schema[0] if schema else None,
        name=name,
        columns=info.schema,
        estimated_rows=known(info.total_records),
        estimated_bytes=known(info.total_bytes),
    )
