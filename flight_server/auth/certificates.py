"""Client certificates say who calls: gRPC has verified them, their first name is mapped to a PostgreSQL login."""

from __future__ import annotations

import hashlib

from flight_server.auth.login import Principal
from flight_server.auth.mapping import LoginMap
from kernels.errors import UnauthenticatedError

PREFIX = "certificate:"
UNKNOWN = Principal(PREFIX)
"""Until the call itself is there: middleware does not see certificates.  No PostgreSQL login belongs to it."""


class Certificates:
    """Knows the holders of client certificates.

    Parameters
    ----------
    users : LoginMap
    key : bytes
        Signs the tokens that carry a session's options.
    """

    everybody = UNKNOWN

    def __init__(self, users: LoginMap, key: bytes) -> None:
        self._users = users
        self._key = hashlib.sha256(b"pgflight certificate login\0" + key).digest()

    def by_peer(self, peer: bytes) -> Principal:
        """Return the holder of a certificate, by its first alternative name, or the common name without any.

        Raises
        ------
        UnauthenticatedError
            There is no certificate, or no name in it.
        """
        name = peer.decode("utf-8", "replace")
        if not name:
            raise UnauthenticatedError("the client's certificate is missing, or has no name")
        return Principal(PREFIX + name)

    def by_password(self, _user: str, _password: str) -> Principal | None:
        """Know nobody by a password: the certificate alone counts."""
        return None

    def by_bearer(self, _secret: str) -> Principal | None:
        """Know nobody by a token: the certificate alone counts."""
        return None

    def key(self, _identity: str) -> bytes | None:
        """Return the one key."""
        return self._key

    def recall(self, _identity: str, _expires_at: float) -> Principal:
        """Return nobody yet: a token carries options here, and never an identity."""
        return UNKNOWN

    def conninfo(self, identity: str, dsn: str) -> str:
        """Return how to connect to PostgreSQL for an identity."""
        return self._users.login(identity.removeprefix(PREFIX)).conninfo(dsn)
