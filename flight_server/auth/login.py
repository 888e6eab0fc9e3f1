"""Who calls: passwords and bearer tokens in a call's headers, and the tokens that a login is answered with."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from flight_server.auth import state
from flight_server.auth.state import SessionState
from kernels.errors import RequestError, UnauthenticatedError

Headers = Mapping[str, list[str | bytes]]

PREFIX = "pgl1."
LIFETIME_S = 7 * 86_400.0
"""Some clients log in once and keep their token; others take the fresh one that follows after half the time."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody whose credentials were good.

    Parameters
    ----------
    identity : str
        Names everything that is theirs: no two principals of a server have the same.
    expires_at : float
        Unix time at which the credentials end, seconds.
    """

    identity: str
    expires_at: float = math.inf


class Backend(Protocol):
    """One way of knowing who calls."""

    @property
    def everybody(self) -> Principal | None:
        """Who calls without credentials; None where they are asked for."""

    def by_password(self, user: str, password: str) -> Principal | None:
        """Return who has a password, None where nobody has it."""

    def by_bearer(self, secret: str) -> Principal | None:
        """Return who has a bearer token that this server did not issue, None where nobody has it."""

    def key(self, identity: str) -> bytes | None:
        """Return the key that signs an identity's login tokens, None where there is no such identity."""

    def recall(self, identity: str, expires_at: float) -> Principal:
        """Return who holds a login token whose signature is right.

        Raises
        ------
        UnauthenticatedError
            They have no access any more, or another server knows them.
        """


@dataclass(frozen=True, slots=True)
class Login:
    """Who calls.

    Parameters
    ----------
    identity : str
    session : SessionState
        The options of its session.
    answer : bool
        Whether the client should be given a fresh token.
    expires_at : float
        Unix time at which the login ends whatever token stands for it, seconds.
    """

    identity: str
    session: SessionState
    answer: bool = False
    expires_at: float = math.inf


class Logins:
    """Checks credentials, and issues tokens that stand for them.

    Parameters
    ----------
    backend : Backend
        Knows whose credentials they are.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def check(self, headers: Headers) -> Login:
        """Return who sent the headers.

        Raises
        ------
        UnauthenticatedError
            Nobody we know.
        RequestError
            The cookie of the session cannot be read.
        """
        given = [
            _text(value) for name, values in headers.items() if name.lower() == "authorization" for value in values
        ]
        problem = "the token or password is " + ("wrong" if given else "missing")
        for value in given:
            try:
                found = self._read(value)
            except UnauthenticatedError as failure:
                problem = str(failure)
                continue
            if found is not None:
                return _with_cookie(found, headers)
        if self._backend.everybody is not None:
            return _with_cookie(Login(self._backend.everybody.identity, SessionState()), headers)
        raise UnauthenticatedError(problem)

    def bearer(self, identity: str, session: SessionState, expires_at: float = math.inf) -> str:
        """Return an ``authorization`` header with a fresh token, which never outlives the credentials."""
        ends_at = min(time.time() + LIFETIME_S, expires_at)
        said: dict[str, Any] = {"i": identity, "e": math.floor(ends_at), "s": session.to_json()}
        if expires_at < math.inf:
            said["x"] = math.floor(expires_at)
        body = base64.urlsafe_b64encode(json.dumps(said, separators=(",", ":")).encode()).decode()
        return f"Bearer {PREFIX}{body}.{_sign(self._backend.key(identity) or b'', body)}"

    def _read(self, value: str) -> Login | None:
        """Return the login an ``authorization`` header stands for; None where it is none."""
        scheme, _, secret = value.partition(" ")
        secret = secret.strip()
        found = None
        if scheme.lower() == "bearer":
            if secret.startswith(PREFIX):
                return self._open(secret.removeprefix(PREFIX))
            found = self._backend.by_bearer(secret)
        elif scheme.lower() == "basic":
            given = _user_and_password(secret)
            found = None if given is None else self._backend.by_password(*given)
        return None if found is None else Login(found.identity, SessionState(), expires_at=found.expires_at)

    def _open(self, token: str) -> Login | None:
        body, _, signature = token.rpartition(".")
        try:
            said: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body))
            identity, ends_at = str(said["i"]), float(said["e"])
            expires_at = float(said.get("x", math.inf))
        except (ValueError, OverflowError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        key = self._backend.key(identity)  # of whom the token says it is: the signature proves it
        if key is None or not hmac.compare_digest(signature.encode(errors="replace"), _sign(key, body).encode()):
            return None
        left_s = ends_at - time.time()
        if left_s < 0:
            raise UnauthenticatedError("the login is too old: log in again")
        known = self._backend.recall(identity, expires_at)
        renew = left_s < LIFETIME_S / 2 and known.expires_at == math.inf
        return Login(known.identity, _session(said.get("s")), answer=renew, expires_at=known.expires_at)


def _sign(key: bytes, body: str) -> str:
    digest = hmac.new(key, body.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).decode()


def _with_cookie(login: Login, headers: Headers) -> Login:
    """Return the login with the session of its cookie, which is newer than its token's."""
    session = state.from_headers(headers)
    return login if session is None else replace(login, session=session)


def _session(said: Any) -> SessionState:
    """Read a token's options; a newer server may know others, and a login is worth more than they are."""
    try:
        return state.from_json(said)
    except RequestError:
        return SessionState()


def _user_and_password(encoded: str) -> tuple[str, str] | None:
    """Return what Basic credentials say, None where they are malformed; not every client pads them."""
    bare = encoded.rstrip("=")
    padded = bare + "=" * (-len(bare) % 4)
    try:
        user, colon, password = base64.b64decode(padded, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return (user, password) if colon else None


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
