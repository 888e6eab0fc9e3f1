"""One call of a Flight SQL client, as the commands see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flight_server.auth.state import SessionState


@dataclass(frozen=True, slots=True)
class Call:
    """Who calls, and what the call brings along.

    Parameters
    ----------
    identity : str
    session : SessionState
    options : mapping
        Read options of the session and of the call's headers, the latter first.
    check : callable
        Raises when the client has gone; for the call's own thread alone.
    keep : callable
        Answers the call so that the client keeps another state of its session.
    peer : str
        Address and port of the client: one for each of its connections.
    """

    identity: str
    session: SessionState
    options: Mapping[str, Any]
    check: Callable[[], None]
    keep: Callable[[SessionState], None]
    peer: str = ""
