"""PostgreSQL itself knows who calls: the client's user and password open the connections that read for it."""

from __future__ import annotations

import hashlib
import hmac
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import psycopg
import structlog
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from flight_server import startup
from flight_server.auth.login import Principal
from flight_server.auth.mapping import OWN_CREDENTIALS
from flight_server.auth.throttle import Throttle
from kernels.errors import ForbiddenError, UnauthenticatedError
from transport.failures import from_psycopg, translated

log = structlog.get_logger("pgflight.login")

PREFIX = "postgres:"
MAX_PASSWORDS = 10_000
MAX_CHARACTERS = 1024
REQUIRE_AUTH = "scram-sha-256"
ATTEMPTS_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class _Known:
    """A password that was right."""

    password: str = field(repr=False)
    checked_at: float  # of the monotonic clock


class PostgresPasswords:
    """Knows whoever PostgreSQL lets in.  Passwords are kept in memory alone.

    Parameters
    ----------
    dsn : str
        The server's own; its credentials are not used.
    key : bytes
        Signs login tokens; shared by replicas.
    recheck_s : float
        A password is shown to PostgreSQL again when it was last accepted so long ago.
    allow_superuser : bool
        Let logins in that could read what is in no table.
    on_change : callable
        Told of an identity whose password is another now, or not good any more.
    throttle : Throttle, optional
    """

    everybody = None

    def __init__(
        self,
        dsn: str,
        key: bytes,
        *,
        recheck_s: float,
        allow_superuser: bool,
        on_change: Callable[[str], None],
        throttle: Throttle | None = None,
    ) -> None:
        self._dsn = dsn
        self._key = hashlib.sha256(b"pgflight postgres login\0" + key).digest()
        self._recheck_s = recheck_s
        self._allow_superuser = allow_superuser
        self._on_change = on_change
        self._throttle = throttle or Throttle()
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._lock = threading.Lock()
        # An identity's attempts come one after another: the second of two right ones finds the first's result.
        self._attempts = [threading.Lock() for _ in range(ATTEMPTS_AT_ONCE)]

    def by_password(self, user: str, password: str) -> Principal | None:
        """Return the user, if PostgreSQL lets them in.

        Raises
        ------
        OverloadedError
            There were too many wrong passwords.
        ForbiddenError
            The role may do too much, or PostgreSQL lets it in without a password.
        ConnectionLostError
            PostgreSQL cannot be reached.
        """
        # An empty password would let libpq look for one of the server's own.
        if not _plausible(user) or not _plausible(password):
            return None
        identity = PREFIX + user
        if self._fresh(identity, password):
            return Principal(identity)
        with self._attempt(identity):
            if self._fresh(identity, password):
                return Principal(identity)
            return Principal(identity) if self._accepted(identity, password) else None

    def by_bearer(self, _secret: str) -> Principal | None:
        """Know nobody by a token that this server did not issue."""
        return None

    def key(self, _identity: str) -> bytes | None:
        """Return the one key: the token's signature covers whose it is."""
        return self._key

    def recall(self, identity: str, _expires_at: float) -> Principal:
        """Return an identity whose password is known here and still good.

        Raises
        ------
        UnauthenticatedError
            Another server knows it, or PostgreSQL does not accept it any more.
        """
        known = self._find(identity)
        if known is None:
            raise UnauthenticatedError(
                f"this server has no password of {identity.removeprefix(PREFIX)!r}: log in here as well"
            )
        if self._fresh(identity, known.password):
            return Principal(identity)
        with self._attempt(identity):
            if not self._fresh(identity, known.password) and not self._accepted(identity, known.password):
                raise UnauthenticatedError("PostgreSQL does not accept the password any more: log in again")
        return Principal(identity)

    def conninfo(self, identity: str, dsn: str) -> str:
        """Return how to connect to PostgreSQL for an identity.

        Raises
        ------
        UnauthenticatedError
            Its password is not known here, or not any more.
        """
        known = self._find(identity)
        if known is None:
            raise UnauthenticatedError("the login has ended: log in again")
        return _conninfo(dsn, identity.removeprefix(PREFIX), known.password)

    def doubt(self, identity: str) -> None:
        """Ask PostgreSQL again now: a connection of the identity's could not be had, or was lost.

        Raises
        ------
        UnauthenticatedError
            That was why.
        """
        with self._lock:
            known = self._known.get(identity)
            if known is not None:
                self._known[identity] = _Known(known.password, -math.inf)
        self.recall(identity, math.inf)

    def _attempt(self, identity: str) -> threading.Lock:
        return self._attempts[hash(identity) % len(self._attempts)]

    def _find(self, identity: str) -> _Known | None:
        with self._lock:
            known = self._known.get(identity)
            if known is not None:
                self._known.move_to_end(identity)
            return known

    def _fresh(self, identity: str, password: str) -> bool:
        known = self._find(identity)
        return (
            known is not None
            and hmac.compare_digest(known.password.encode(), password.encode())
            and time.monotonic() - known.checked_at < self._recheck_s
        )

    def _accepted(self, identity: str, password: str) -> bool:
        """Ask PostgreSQL, and remember what it says."""
        before = self._find(identity)
        again = before is not None and hmac.compare_digest(before.password.encode(), password.encode())
        # Whoever is logged in cannot be shut out by somebody else's guesses.
        accepted = self._ask(identity, password) if again else self._ask_if_allowed(identity, password)
        if accepted:
            self._remember(identity, password)
        if (accepted and before is not None and not again) or (again and not accepted):
            if not accepted:
                self._forget(identity)
            self._on_change(identity)
        return accepted

    def _ask_if_allowed(self, identity: str, password: str) -> bool:
        self._throttle.spend(identity)
        try:
            accepted = self._ask(identity, password)
        except BaseException:
            self._throttle.give_back(identity)
            raise
        if accepted:
            self._throttle.give_back(identity)
        else:
            log.info("login refused", identity=identity)
        return accepted

    def _ask(self, identity: str, password: str) -> bool:
        try:
            connection = psycopg.connect(
                _conninfo(self._dsn, identity.removeprefix(PREFIX), password),
                autocommit=True,
                connect_timeout=startup.CONNECT_TIMEOUT_S,
            )
        except psycopg.OperationalError as failure:
            if "authentication method requirement" in str(failure):
                raise ForbiddenError(
                    "PostgreSQL does not ask this login for a password as it should: its pg_hba.conf must say "
                    "scram-sha-256 for connections from here (or set require_auth in the server's dsn)"
                ) from failure
            # libpq has no SQLSTATE for a login that fails: what was asked for a password and ended is a no.
            if failure.pgconn is not None and failure.pgconn.used_password:
                return False
            raise from_psycopg(failure) from failure
        with translated(), connection:
            if not connection.pgconn.used_password:
                raise ForbiddenError("PostgreSQL lets this login in without a password: so will not this server")
            startup.require_safe_login(startup.look(connection), allow_superuser=self._allow_superuser)
        return True

    def _remember(self, identity: str, password: str) -> None:
        forgotten = []
        with self._lock:
            self._known[identity] = _Known(password, time.monotonic())
            self._known.move_to_end(identity)
            while len(self._known) > MAX_PASSWORDS:
                forgotten.append(self._known.popitem(last=False)[0])
        for name in forgotten:
            self._on_change(name)

    def _forget(self, identity: str) -> None:
        with self._lock:
            self._known.pop(identity, None)
        log.info("login ended", identity=identity)


def _conninfo(dsn: str, user: str, password: str) -> str:
    kept = {name: value for name, value in conninfo_to_dict(dsn).items() if name not in OWN_CREDENTIALS}
    return make_conninfo("", **{"require_auth": REQUIRE_AUTH, **kept, "user": user, "password": password})


def _plausible(text: str) -> bool:
    return 0 < len(text) <= MAX_CHARACTERS and "\0" not in text
