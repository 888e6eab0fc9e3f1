"""Who calls, and what the call's headers ask for."""

from __future__ import annotations

import hmac
import threading
from collections.abc import Mapping
from typing import Any

from pyarrow import flight

from flight_server.options import options_from_headers
from flight_server.status import typed
from kernels.errors import OverloadedError, UnauthenticatedError

MIDDLEWARE = "pgflight"
ANONYMOUS = "anonymous"
TOKEN_HOLDER = "token"  # noqa: S105 (an identity's name, not a secret)
BEARER = "bearer "


class Caller(flight.ServerMiddleware):
    """What is known of one call: its identity and the options in its headers."""

    def __init__(self, identity: str, options: Mapping[str, Any]) -> None:
        self.identity = identity
        self.options = options


class CallerFactory(flight.ServerMiddlewareFactory):
    """Checks the bearer token of every call, and turns calls away while the server drains.

    Parameters
    ----------
    token : str or None
        The token to ask for; None to let everybody in.
    draining : Event
        Set when no new calls are to be taken.
    """

    def __init__(self, token: str | None, draining: threading.Event) -> None:
        self._token = token
        self._draining = draining

    @typed
    def start_call(self, info: flight.CallInfo, headers: Mapping[str, list[str | bytes]]) -> Caller:  # noqa: ARG002
        """Let a call in, or raise."""
        if self._draining.is_set():
            raise OverloadedError("the server is shutting down")
        if self._token is None:
            return Caller(ANONYMOUS, options_from_headers(headers))
        given = [
            _text(value) for key, values in headers.items() if key.lower() == "authorization" for value in values
        ]
        for value in given:
            secret = value[len(BEARER) :] if value[: len(BEARER)].lower() == BEARER else ""
            if hmac.compare_digest(secret.encode(), self._token.encode()):
                return Caller(TOKEN_HOLDER, options_from_headers(headers))
        raise UnauthenticatedError("the bearer token is " + ("wrong" if given else "missing"))


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
