"""Settings -> who is let in: the way of logging in, and the PostgreSQL connections that belong to it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from flight_server import startup
from flight_server.auth.certificates import Certificates
from flight_server.auth.login import Backend
from flight_server.auth.mapping import LoginMap
from flight_server.auth.postgres import PostgresPasswords
from flight_server.auth.tokens import Everybody, OneToken, TokenFile
from flight_server.config import Settings
from flight_server.reading.pipeline import Pipeline
from flight_server.tenants import TenantLimits
from kernels.errors import ConfigError


class NamedBackend(Backend, Protocol):
    """A backend whose identities have PostgreSQL logins of their own."""

    def conninfo(self, identity: str, dsn: str) -> str:
        """Return how to connect to PostgreSQL for an identity, at the server that the server's DSN names."""


def _nothing(_identity: str) -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True)
class Access:
    """Who is let in, and what is opened for them.

    Parameters
    ----------
    backend : Backend
    open_pipeline : callable
        Returns the pipeline of an identity.
    limits : TenantLimits
    snapshot_max_s : float
        How long a snapshot is held at most.
    vet : callable
        Raises where an identity's PostgreSQL login is not to be used.
    on_lost : callable
        Told of an identity whose connection to PostgreSQL could not be had, or was lost.
    """

    backend: Backend
    open_pipeline: Callable[[str], Pipeline]
    limits: TenantLimits
    snapshot_max_s: float
    vet: Callable[[str], None] = _nothing
    on_lost: Callable[[str], None] = _nothing


def build(
    settings: Settings,
    open_pipeline: Callable[[str, int], Pipeline],
    on_change: Callable[[str], None],
) -> Access:
    """Return the access that the settings describe.

    Parameters
    ----------
    settings : Settings
    open_pipeline : callable
        Takes a conninfo and a number of connections.
    on_change : callable
        Told of an identity whose password changed.

    Raises
    ------
    ConfigError
        A file is missing or wrong.
    """
    dsn = settings.dsn.get_secret_value()
    key = settings.ticket_key() or secrets.token_bytes(32)
    backend = _named(settings, key, on_change)
    if backend is None:
        token = settings.token()
        return Access(
            Everybody() if token is None else OneToken(token),
            lambda _identity: open_pipeline(dsn, settings.max_connections),
            TenantLimits(1, wait_s=settings.connection_wait_s),
            settings.snapshot_max_s,
        )
    each = min(settings.identity_connections, settings.max_connections)
    limits = TenantLimits(
        count=settings.max_connections // each,
        idle_s=settings.identity_idle_s,
        wait_s=settings.connection_wait_s,
        vet_s=settings.login_recheck_s,
    )
    access = Access(
        backend,
        lambda identity: open_pipeline(backend.conninfo(identity, dsn), each),
        limits,
        settings.snapshot_max_s,
    )
    if isinstance(backend, PostgresPasswords):  # looks at logins itself, whenever it asks PostgreSQL
        return replace(access, on_lost=backend.doubt)
    return replace(access, vet=partial(_vet, backend, settings))


def _vet(backend: NamedBackend, settings: Settings, identity: str) -> None:
    """Connect once as an identity, and look at what its login may do."""
    conninfo = backend.conninfo(identity, settings.dsn.get_secret_value())
    startup.require_safe_login(startup.probe(conninfo), allow_superuser=settings.allow_superuser)


def _named(settings: Settings, key: bytes, on_change: Callable[[str], None]) -> NamedBackend | None:
    """Return the backend that tells identities apart, None where all are one."""
    if settings.login == "postgres":
        return PostgresPasswords(
            settings.dsn.get_secret_value(),
            key,
            recheck_s=settings.login_recheck_s,
            allow_superuser=settings.allow_superuser,
            on_change=on_change,
        )
    if settings.login == "oidc":
        return _oidc(settings, key)
    if settings.login == "certificate":
        return Certificates(_login_map(settings), key)
    return None if settings.auth_tokens_file is None else TokenFile.load(settings.auth_tokens_file)


def _oidc(settings: Settings, key: bytes) -> NamedBackend:
    try:
        from flight_server.auth.jwks import KeySet  # noqa: PLC0415 (PyJWT is an extra)
        from flight_server.auth.oidc import Oidc, Trust  # noqa: PLC0415
    except ModuleNotFoundError as failure:
        raise ConfigError(f"login=oidc needs PyJWT: pip install 'pgflight-server[oidc]' ({failure})") from failure
    trust = Trust(
        settings.oidc_issuer, settings.oidc_audience, settings.oidc_algorithm_names(), settings.oidc_claim
    )
    return Oidc(KeySet(settings.oidc_jwks), trust, _login_map(settings), key)


def _login_map(settings: Settings) -> LoginMap:
    if settings.login_map is None:
        raise ConfigError(f"login={settings.login} needs login_map: a TOML file that names PostgreSQL logins")
    return LoginMap.load(settings.login_map)
