"""A session's options: kept by the client, in a cookie or in its bearer token, so that any replica knows them."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from flight_server.options import parse_options
from kernels.errors import RequestError

COOKIE = "pgflight_session"
MAX_STATE_BYTES = 2048
"""gRPC takes 8 KB of headers in all."""


@dataclass(frozen=True, slots=True)
class SessionState:
    """What a client chose for the calls of its session.

    Parameters
    ----------
    schema : str
        Where names without a schema are looked up; empty for the role's own path.
    options : mapping
        Read options by name.
    """

    schema: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def with_schema(self, schema: str) -> SessionState:
        """Return the state with another schema."""
        return replace(self, schema=schema)

    def with_option(self, name: str, value: Any) -> SessionState:
        """Return the state with another value of an option; None for its default.

        Raises
        ------
        RequestError
            There is no such option, or not with that value.
        """
        others = {key: kept for key, kept in self.options.items() if key != name}
        options = others if value is None else others | {name: value}
        parse_options(options)
        return replace(self, options=options)

    def to_json(self) -> dict[str, Any]:
        """Return the state, ready for JSON; nothing where nothing was chosen."""
        said = {"schema": self.schema, "options": dict(self.options)}
        return {name: value for name, value in said.items() if value}

    def to_cookie(self) -> str:
        """Return the value of a ``set-cookie`` header that keeps the state.

        Raises
        ------
        RequestError
            It is too long to be kept.
        """
        said = self.to_json()
        if not said:
            return f"{COOKIE}=; Max-Age=0"
        encoded = base64.urlsafe_b64encode(json.dumps(said, separators=(",", ":")).encode()).decode().rstrip("=")
        if len(encoded) > MAX_STATE_BYTES:
            raise RequestError(f"the session's options take more than {MAX_STATE_BYTES} bytes")
        return f"{COOKIE}={encoded}"


def from_json(said: Any) -> SessionState:
    """Read what `SessionState.to_json` returned.

    Raises
    ------
    RequestError
        It did not.
    """
    if not isinstance(said, dict) or not said.keys() <= {"schema", "options"}:
        raise RequestError("the session's options cannot be read: set them again")
    schema, options = said.get("schema", ""), said.get("options", {})
    if not isinstance(schema, str) or "\0" in schema or not isinstance(options, dict):
        raise RequestError("the session's options cannot be read: set them again")
    parse_options(options)
    return SessionState(schema, options)


def from_headers(headers: Mapping[str, list[str | bytes]]) -> SessionState | None:
    """Read the state out of a call's cookies; None where there is none.

    Raises
    ------
    RequestError
        The cookie is not one of ours.
    """
    for name, values in headers.items():
        if name.lower() == "cookie":
            for value in values:
                text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
                found = _cookie(text)
                if found:
                    return from_json(_decode(found))
    return None


def _cookie(text: str) -> str:
    """Find our cookie's value beside others, which need not be well formed."""
    pairs = (part.strip().partition("=") for part in text.split(";"))
    return next((value.strip('"') for name, _, value in pairs if name == COOKIE), "")


def _decode(encoded: str) -> Any:
    try:
        return json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except (binascii.Error, ValueError, RecursionError) as failure:
        raise RequestError("the session's cookie cannot be read: set its options again") from failure
