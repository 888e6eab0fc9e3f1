"""From an identity to the PostgreSQL login that reads for it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from kernels.errors import ConfigError, ForbiddenError

OWN_CREDENTIALS = ("user", "password", "passfile", "sslcert", "sslkey", "sslpassword")
"""What in the server's DSN proves who the server is: nobody else connects with it."""
ANY = "*"
SAME = "="


@dataclass(frozen=True, slots=True)
class PostgresLogin:
    """How a session of somebody else's connects.

    Parameters
    ----------
    user : str or None
        None for the server's own login.
    service : str or None
        Section of libpq's service file.
    passfile : Path or None
        libpq's password file; None for its default one.
    """

    user: str | None = None
    service: str | None = None
    passfile: Path | None = None

    def conninfo(self, dsn: str) -> str:
        """Return the server's DSN with this login's parts; the server's own credentials stay out of it."""
        if self.user is None and self.service is None and self.passfile is None:
            return dsn
        kept = {name: value for name, value in conninfo_to_dict(dsn).items() if name not in OWN_CREDENTIALS}
        given = {"user": self.user, "service": self.service, "passfile": self.passfile and str(self.passfile)}
        return make_conninfo("", **{**kept, **{name: value for name, value in given.items() if value}})


class LoginMap:
    """Names of claims and certificates -> PostgreSQL logins; a name that is not in the map has none.

    Parameters
    ----------
    users : mapping of str to str
        The name ``*`` stands for all others; the login ``=`` is the name itself.
    """

    def __init__(self, users: Mapping[str, str]) -> None:
        self._users = dict(users)

    @classmethod
    def load(cls, path: Path) -> LoginMap:
        """Read a TOML file of lines ``"name" = "login"``.

        Raises
        ------
        ConfigError
            Naming the file.
        """
        try:
            with path.open("rb") as file:
                users = tomllib.load(file)
        except OSError as failure:
            raise ConfigError(f"cannot read {path}: {failure.strerror}") from failure
        except ValueError as failure:
            raise ConfigError(f"{path}: {failure}") from failure
        if not users or not all(isinstance(user, str) and user for user in users.values()):
            raise ConfigError(f'{path}: each line must be "name" = "PostgreSQL login"')
        return cls(users)

    def login(self, name: str) -> PostgresLogin:
        """Return the login of a name.

        Raises
        ------
        ForbiddenError
            It has none.
        """
        user = self._users.get(name, self._users.get(ANY))
        if not name or user is None:
            raise ForbiddenError(f"{name!r} is known, but has no PostgreSQL login here (login_map)")
        return PostgresLogin(name if user == SAME else user)
