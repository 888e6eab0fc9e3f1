"""Who calls, and what the call's headers ask for."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from pyarrow import flight

from flight_server.auth.certificates import Certificates
from flight_server.auth.login import Backend, Login, Logins
from flight_server.options import options_from_headers
from flight_server.status import typed
from kernels.errors import OverloadedError, RequestError

MIDDLEWARE = "pgflight"
LEASE_HEADER = "pgflight-lease"
SHARED_HEADER = "pgflight-shared"


class Caller(flight.ServerMiddleware):
    """What is known of one call: who calls, and the options of its session and in its headers.

    Parameters
    ----------
    login : Login
    options : mapping
        From the headers; they win over the session's.
    answer : dict
        Headers to answer with.
    lease : str
        By which lease connection the client takes device batches, as it says; else empty.
    shared : str
        Where it has memory for batches, as it says; else empty.
    """

    def __init__(
        self, login: Login, options: Mapping[str, Any], answer: dict[str, str], lease: str = "", shared: str = ""
    ) -> None:
        self.identity = login.identity
        self.expires_at = login.expires_at
        self.session = login.session
        self.options = {**login.session.options, **options}
        self.lease = lease
        self.shared = shared
        self._answer = answer

    def sending_headers(self) -> dict[str, str]:
        """Return the headers to answer with, once: for some calls Arrow asks twice."""
        answer, self._answer = self._answer, {}
        return answer


class CallerFactory(flight.ServerMiddlewareFactory):
    """Checks the credentials of every call, and turns calls away while the server drains.

    Parameters
    ----------
    backend : Backend
        Knows whose credentials they are.
    draining : Event
        Set when no new calls are to be taken.
    """

    def __init__(self, backend: Backend, draining: threading.Event) -> None:
        self.logins = Logins(backend)
        self._certificates = backend if isinstance(backend, Certificates) else None
        self._draining = draining

    @typed
    def start_call(self, info: flight.CallInfo, headers: Mapping[str, list[str | bytes]]) -> Caller:
        """Let a call in, or raise; a handshake, and now and then another call, is answered with a token."""
        if self._draining.is_set():
            raise OverloadedError("the server is shutting down")
        login = self.logins.check(headers)
        answer = {}
        if login.answer or info.method == flight.FlightMethod.HANDSHAKE:
            answer["authorization"] = self.logins.bearer(login.identity, login.session, login.expires_at)
        lease, shared = _text(headers, LEASE_HEADER), _text(headers, SHARED_HEADER)
        return Caller(login, options_from_headers(headers), answer, lease, shared)

    def caller(self, context: flight.ServerCallContext) -> Caller:
        """Return who makes a call.

        Raises
        ------
        UnauthenticatedError
            A certificate has to say so, and there is none.
        """
        caller = context.get_middleware(MIDDLEWARE)
        if not isinstance(caller, Caller):
            raise RequestError("the call did not pass the server's middleware")
        if self._certificates is not None:
            caller.identity = self._certificates.by_peer(context.peer_identity()).identity
        return caller

    @property
    def handshake(self) -> OpenHandshake | None:
        """What answers handshakes; with it gRPC does not tell whose certificate a call comes with."""
        return OpenHandshake() if self._certificates is None else None


class OpenHandshake(flight.ServerAuthHandler):
    """Lets every handshake pass: the headers say who calls, and the middleware reads them on every call."""

    def authenticate(self, _outgoing: object, _incoming: object) -> None:
        """Ask for nothing more."""

    def is_valid(self, _token: bytes) -> bytes:
        """Know nobody by a token of the handshake."""
        return b""


def _text(headers: Mapping[str, list[str | bytes]], name: str) -> str:
    """Return the last value of a header, empty where there is none."""
    last = (headers.get(name) or [""])[-1]
    return last.decode("utf-8", "replace") if isinstance(last, bytes) else last
