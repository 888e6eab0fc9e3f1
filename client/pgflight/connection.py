"""Flight connections: one per location, with the deadline, token and TLS settings of the user."""

import contextlib
import ipaddress
import threading
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pyarrow import flight, ipc

SCHEMES = ("grpc", "grpc+tcp", "grpc+tls", "grpc+unix")
_REUSE_CONNECTION = "arrow-flight-reuse-connection"
# gRPC hands over large messages at odd addresses: Acero warns of such buffers, other consumers refuse them.
READ_OPTIONS = ipc.IpcReadOptions(ensure_alignment=ipc.Alignment.DataTypeSpecific)


def full_uri(uri: str) -> str:
    """Complete ``host:port`` to ``grpc://host:port``; check the scheme of anything else.

    Raises
    ------
    ValueError
        The scheme is none of ``grpc``, ``grpc+tcp``, ``grpc+tls`` and ``grpc+unix``.
    """
    scheme, separator, _ = uri.partition("://")
    if not separator:
        return f"grpc://{uri}"
    if scheme not in SCHEMES:
        raise ValueError(f"unknown scheme {scheme!r} in {uri!r} (expected one of {', '.join(SCHEMES)})")
    return uri


@dataclass(frozen=True)
class Settings:
    """How to connect and call; the same for every location."""

    uri: str
    token: str | None = field(repr=False)
    user: str | None
    password: str | None = field(repr=False)
    allow_plaintext: bool
    tls_root_certs: bytes | Path | None
    timeout_s: float | None
    share_memory: bool
    headers: Mapping[str, str] = field(repr=False)
    flight_options: Mapping[str, Any] = field(repr=False)

    def call_options(self, headers: Mapping[str, str] | None = None) -> flight.FlightCallOptions:
        """Options for one call, with headers of its own; its deadline counts from the call's start."""
        pairs = {**self.headers, **(headers or {})}
        if self.token is not None:
            pairs["authorization"] = f"Bearer {self.token}"
        if self.user is not None:
            pairs["authorization"] = f"Basic {b64encode(f'{self.user}:{self.password}'.encode()).decode()}"
        encoded = [(name.lower().encode("ascii"), _header_value(name, text)) for name, text in pairs.items()]
        return flight.FlightCallOptions(timeout=self.timeout_s, headers=encoded, read_options=READ_OPTIONS)

    def dial(self, uri: str) -> flight.FlightClient:
        """Make a client for `uri`. gRPC connects at the first call.

        Raises
        ------
        ValueError
            A password would cross the network unencrypted.
        """
        if self.user is not None and not self.allow_plaintext and not _is_private(uri):
            raise ValueError(
                f"a password would cross the network unencrypted to {uri}: use grpc+tls, or allow_plaintext"
            )
        roots = self.tls_root_certs
        if isinstance(roots, Path):
            roots = roots.read_bytes()
        return flight.FlightClient(uri, tls_root_certs=roots, **self.flight_options)

    @property
    def may_share(self) -> bool:
        """Whether the server may be one on this host, to which batches' memory can be offered."""
        return self.share_memory and is_local(self.uri)


class Connections:
    """The clients of one :class:`~pgflight.Client`, by location. Safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.home = settings.dial(settings.uri)
        self._others: dict[str, flight.FlightClient] = {}
        self._lock = threading.Lock()

    def open(
        self, endpoint: flight.FlightEndpoint, headers: Mapping[str, str] | None = None
    ) -> flight.FlightStreamReader:
        """Start an endpoint's stream at the first of its locations that answers.

        With headers that say where batches go in memory, at the server that was asked: it is on this host.

        Raises
        ------
        pyarrow.flight.FlightError
            The server's error, or that of the last location tried.
        """
        if headers:
            return self.do_get("", endpoint.ticket, headers)
        *others, last = [location.uri.decode() for location in endpoint.locations] or [""]
        for uri in others:
            with contextlib.suppress(flight.FlightUnavailableError):
                return self.do_get(uri, endpoint.ticket, headers)
        return self.do_get(last, endpoint.ticket, headers)

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            clients = [self.home, *self._others.values()]
            self._others.clear()
        for client in clients:
            client.close()

    def do_get(
        self, uri: str, ticket: flight.Ticket, headers: Mapping[str, str] | None = None
    ) -> flight.FlightStreamReader:
        """Start a ticket's stream at one location; empty means the server itself."""
        return self._client(uri).do_get(ticket, self.settings.call_options(headers))

    def _client(self, uri: str) -> flight.FlightClient:
        if uri in ("", self.settings.uri) or uri.startswith(_REUSE_CONNECTION):
            return self.home
        if self.settings.uri.startswith("grpc+tls://") and not uri.startswith("grpc+tls://"):
            raise flight.FlightUnauthorizedError(
                f"the server refers to {uri}, which is not encrypted as {self.settings.uri} is: not followed"
            )
        with self._lock:
            if uri not in self._others:
                self._others[uri] = self.settings.dial(uri)
            return self._others[uri]


def _is_private(uri: str) -> bool:
    """Tell whether nobody on the way can read what is sent: it is encrypted, or does not leave this host."""
    return urlsplit(uri).scheme == "grpc+tls" or is_local(uri)


def is_local(uri: str) -> bool:
    """Tell whether a server is reached without leaving this host."""
    parts = urlsplit(uri)
    if parts.scheme == "grpc+unix" or parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


def _header_value(name: str, text: str) -> bytes:
    """Refuse what gRPC refuses, without its log lines and without showing the value."""
    if not text.isascii() or not text.isprintable():
        raise ValueError(f"the value of header {name!r} has characters other than printable ASCII")
    return text.encode("ascii")
