"""Who calls: passwords and bearer tokens in a call's headers, and the tokens that a login is answered with."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from flight_server.sql import state
from flight_server.sql.state import SessionState
from kernels.errors import RequestError, UnauthenticatedError

Headers = Mapping[str, list[str | bytes]]

ANONYMOUS = "anonymous"
TOKEN_HOLDER = "token"  # noqa: S105 (an identity's name, not a secret)
PREFIX = "pgl1."
LIFETIME_S = 7 * 86_400.0
"""Some clients log in once and keep their token; others take the fresh one that follows after half the time."""


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
    """

    identity: str
    session: SessionState
    answer: bool = False


class Logins:
    """Checks credentials, and issues tokens that stand for them.

    A token is signed with the server's own: it is good on every server that asks for the same, and ends with it.

    Parameters
    ----------
    token : str or None
        What to ask for, as bearer token or as password of any user; None to let everybody in.
    """

    def __init__(self, token: str | None) -> None:
        self._token = token
        self._key = hashlib.sha256(b"pgflight login\0" + (token or "").encode()).digest()

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
        problem = "wrong" if given else "missing"
        for value in given:
            try:
                found = self._read(value)
            except UnauthenticatedError:
                problem = "too old: log in again"
                continue
            if found is not None:
                return _with_cookie(found, headers)
        if self._token is None:
            return _with_cookie(Login(ANONYMOUS, SessionState()), headers)
        raise UnauthenticatedError(f"the token or password is {problem}")

    def bearer(self, identity: str, session: SessionState) -> str:
        """Return an ``authorization`` header with a fresh token for a client."""
        said = {"i": identity, "e": round(time.time() + LIFETIME_S), "s": session.to_json()}
        body = base64.urlsafe_b64encode(json.dumps(said, separators=(",", ":")).encode()).decode()
        return f"Bearer {PREFIX}{body}.{self._sign(body)}"

    def _read(self, value: str) -> Login | None:
        """Return the login an ``authorization`` header stands for; None where it is none."""
        scheme, _, secret = value.partition(" ")
        secret = secret.strip()
        if scheme.lower() == "bearer":
            if secret.startswith(PREFIX):
                return self._open(secret.removeprefix(PREFIX))
            if self._is_token(secret):
                return Login(TOKEN_HOLDER, SessionState())
        elif scheme.lower() == "basic" and self._is_token(_password(secret)):
            return Login(TOKEN_HOLDER, SessionState())
        return None

    def _is_token(self, secret: str | None) -> bool:
        if self._token is None or secret is None:
            return False
        return hmac.compare_digest(secret.encode("utf-8", "surrogatepass"), self._token.encode())

    def _open(self, token: str) -> Login | None:
        body, _, signature = token.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign(body).encode()):
            return None
        try:
            said: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body))
            identity, left_s = str(said["i"]), float(said["e"]) - time.time()
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        if left_s < 0:
            raise UnauthenticatedError("the login has ended: log in again")
        # Without a token of the server's anybody can sign: such a token carries options, but no identity.
        known = ANONYMOUS if self._token is None else identity
        return Login(known, _session(said.get("s")), answer=left_s < LIFETIME_S / 2)

    def _sign(self, body: str) -> str:
        digest = hmac.new(self._key, body.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
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


def _password(encoded: str) -> str | None:
    """Return the password of Basic credentials, None where they are malformed; not every client pads them."""
    bare = encoded.rstrip("=")
    padded = bare + "=" * (-len(bare) % 4)
    try:
        _, colon, password = base64.b64decode(padded, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return password if colon else None


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
