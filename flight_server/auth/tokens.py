"""Logins without PostgreSQL's passwords: everybody, one token for all, or a file of tokens with names."""

from __future__ import annotations

import hashlib
import hmac
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError, model_validator

from flight_server.auth.login import Principal
from flight_server.auth.mapping import PostgresLogin
from kernels.errors import ConfigError, UnauthenticatedError

ANONYMOUS = "anonymous"
TOKEN_HOLDER = "token"  # noqa: S105 (an identity's name, not a secret)
MIN_TOKEN_CHARACTERS = 16
"""Guesses are as many as the network carries; a token of so many random characters is not found."""


class Everybody:
    """Lets everybody in, as one and the same."""

    everybody = Principal(ANONYMOUS)

    def by_password(self, _user: str, _password: str) -> Principal | None:
        """Return everybody, whatever they bring along."""
        return self.everybody

    def by_bearer(self, _secret: str) -> Principal | None:
        """Return everybody, whatever they bring along."""
        return self.everybody

    def key(self, _identity: str) -> bytes | None:
        """Return a key that is no secret: such a token carries options, but no identity."""
        return _key("")

    def recall(self, _identity: str, _expires_at: float) -> Principal:
        """Return everybody."""
        return self.everybody


class OneToken:
    """Knows one token, as bearer token or as password of any user.

    Login tokens are signed with it: they are good on every server that asks for the same, and end with it.

    Parameters
    ----------
    token : str
    """

    everybody = None

    def __init__(self, token: str) -> None:
        self._token = token
        self._holder = Principal(TOKEN_HOLDER)

    def by_password(self, _user: str, password: str) -> Principal | None:
        """Return the holder of the token."""
        return self.by_bearer(password)

    def by_bearer(self, secret: str) -> Principal | None:
        """Return the holder of the token."""
        return self._holder if _same(secret, self._token) else None

    def key(self, identity: str) -> bytes | None:
        """Return the one key."""
        return _key(self._token) if identity == TOKEN_HOLDER else None

    def recall(self, _identity: str, _expires_at: float) -> Principal:
        """Return the holder of the token."""
        return self._holder


class TokenEntry(BaseModel):
    """One table of a token file: ``[identity]``."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    token: SecretStr = Field(min_length=MIN_TOKEN_CHARACTERS)
    user: str | None = None
    service: str | None = None
    passfile: Path | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.passfile is not None and self.user is None and self.service is None:
            raise ValueError("passfile goes with user or service")
        return self


class TokenFile:
    """Knows several tokens, each with the identity whose it is.

    An identity's login tokens are signed with its own token, and end with it.

    Parameters
    ----------
    entries : mapping of str to TokenEntry
        By identity.
    """

    everybody = None

    def __init__(self, entries: Mapping[str, TokenEntry]) -> None:
        self._tokens = {f"token:{name}": entry.token.get_secret_value() for name, entry in entries.items()}
        self._logins = {
            f"token:{name}": PostgresLogin(entry.user, entry.service, entry.passfile)
            for name, entry in entries.items()
        }
        if len(set(self._tokens.values())) < len(self._tokens):
            raise ConfigError("auth_tokens_file: two identities have the same token")

    @classmethod
    def load(cls, path: Path) -> TokenFile:
        """Read a TOML file.

        Raises
        ------
        ConfigError
            Naming the file, and the entry that is wrong.
        """
        try:
            with path.open("rb") as file:
                entries = TypeAdapter(dict[str, TokenEntry]).validate_python(tomllib.load(file))
        except OSError as failure:
            raise ConfigError(f"cannot read {path}: {failure.strerror}") from failure
        except ValidationError as failure:
            problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in failure.errors())
            raise ConfigError(f"{path}: {problems}") from None
        except ValueError as failure:  # no TOML, or no text
            raise ConfigError(f"{path}: {failure}") from failure
        if not entries:
            raise ConfigError(f"{path} names no identity")
        return cls(entries)

    def by_password(self, _user: str, password: str) -> Principal | None:
        """Return whose token the password is: drivers that know passwords only send it as one."""
        return self.by_bearer(password)

    def by_bearer(self, secret: str) -> Principal | None:
        """Return whose token it is; each is compared in full, so that the time tells nothing."""
        found = [name for name, token in self._tokens.items() if _same(secret, token)]
        return Principal(found[0]) if found else None

    def key(self, identity: str) -> bytes | None:
        """Return the key of an identity's login tokens."""
        token = self._tokens.get(identity)
        return None if token is None else _key(token)

    def recall(self, identity: str, _expires_at: float) -> Principal:
        """Return an identity of the file."""
        if identity not in self._tokens:
            raise UnauthenticatedError("the login is unknown: log in again")
        return Principal(identity)

    def conninfo(self, identity: str, dsn: str) -> str:
        """Return how to connect to PostgreSQL for an identity."""
        return self._logins[identity].conninfo(dsn)


def _key(token: str) -> bytes:
    return hashlib.sha256(b"pgflight login\0" + token.encode()).digest()


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), token.encode())
