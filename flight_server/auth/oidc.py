"""An identity provider says who calls: JWTs are verified by its public keys, a claim is mapped to a login."""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass
from typing import Any

import jwt

from flight_server.auth.jwks import KeySet
from flight_server.auth.login import Principal
from flight_server.auth.mapping import LoginMap
from kernels.errors import UnauthenticatedError

PREFIX = "oidc:"
LEEWAY_S = 10.0
MAX_NAME_CHARACTERS = 256


@dataclass(frozen=True, slots=True)
class Trust:
    """Which tokens are believed.

    Parameters
    ----------
    issuer, audience : str
    algorithms : tuple of str
        Of public keys, none of shared secrets.
    claim : str
        Names the caller.
    """

    issuer: str
    audience: str
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    claim: str = "sub"


class Oidc:
    """Knows whoever brings a token of the identity provider's, as bearer token or as password of any user.

    Parameters
    ----------
    keys : KeySet
    trust : Trust
    users : LoginMap
    key : bytes
        Signs login tokens; shared by replicas.
    """

    everybody = None

    def __init__(self, keys: KeySet, trust: Trust, users: LoginMap, key: bytes) -> None:
        self._keys = keys
        self._trust = trust
        self._users = users
        self._key = hashlib.sha256(b"pgflight oidc login\0" + key).digest()

    def by_password(self, _user: str, password: str) -> Principal | None:
        """Return whom the password names: drivers that know passwords only send the token as one."""
        return self.by_bearer(password)

    def by_bearer(self, secret: str) -> Principal | None:
        """Return whom a token names, None where it is not believed.

        Raises
        ------
        UnauthenticatedError
            It was good, and has expired.
        """
        try:
            header = jwt.get_unverified_header(secret)
            if header.get("alg") not in self._trust.algorithms:
                return None
            key = self._keys.find(header.get("kid"))
            if key is None:
                return None
            claims = jwt.decode(
                secret,
                key,
                algorithms=list(self._trust.algorithms),
                issuer=self._trust.issuer,
                audience=self._trust.audience,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud", self._trust.claim]},
            )
        except jwt.ExpiredSignatureError as failure:
            raise UnauthenticatedError("the token has expired: get a new one where it came from") from failure
        except (jwt.PyJWTError, ValueError, TypeError):  # a token can be any text at all
            return None
        return self._principal(claims)

    def key(self, _identity: str) -> bytes | None:
        """Return the one key: the token's signature covers whose it is, and until when."""
        return self._key

    def recall(self, identity: str, expires_at: float) -> Principal:
        """Return who logged in with a token that is still good.

        Raises
        ------
        UnauthenticatedError
            It has expired.
        """
        if not time.time() < expires_at < math.inf:
            raise UnauthenticatedError("the token has expired: get a new one where it came from")
        return Principal(identity, expires_at)

    def conninfo(self, identity: str, dsn: str) -> str:
        """Return how to connect to PostgreSQL for an identity."""
        return self._users.login(identity.removeprefix(PREFIX)).conninfo(dsn)

    def _principal(self, claims: dict[str, Any]) -> Principal | None:
        name = claims[self._trust.claim]
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_CHARACTERS or "\0" in name:
            return None
        return Principal(PREFIX + name, float(claims["exp"]) + LEEWAY_S)
