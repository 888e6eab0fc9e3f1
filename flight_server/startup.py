"""What is found out before the server listens: the PostgreSQL it will read, and whether the role is safe."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import psycopg
from psycopg import pq

from kernels.backend import CudaBackend, HostBackend, is_compiled
from kernels.errors import ConfigError, ForbiddenError, PgflightError
from transport.failures import translated
from transport.reader import reader_name

ROLE_SQL = """
select current_user::pg_catalog.text, rolsuper,
       pg_has_role(current_user, 'pg_read_server_files', 'member'),
       pg_has_role(current_user, 'pg_write_server_files', 'member'),
       pg_has_role(current_user, 'pg_execute_server_program', 'member'),
       current_database()::pg_catalog.text, pg_encoding_to_char(encoding)::pg_catalog.text, pg_is_in_recovery()
from pg_catalog.pg_roles, pg_catalog.pg_database where rolname = current_user and datname = current_database()
"""
CONNECT_TIMEOUT_S = 10
PROBE_TIMEOUT_S = 2
PACKAGES = ("pgflight-server", "pyarrow", "numba", "numpy", "psycopg")


@dataclass(frozen=True, slots=True)
class PostgresFacts:
    """The database and the role that serve."""

    server_version: str
    role: str
    superuser: bool
    reads_server_files: bool
    writes_server_files: bool
    executes_programs: bool
    database: str
    encoding: str
    in_recovery: bool
    encrypted: bool
    reader: str

    @property
    def dangers(self) -> list[str]:
        """Powers that a query could misuse although its transaction is read-only."""
        named = {
            "is a superuser": self.superuser,
            "may read server files": self.reads_server_files,
            "may write server files": self.writes_server_files,
            "may execute programs on the server": self.executes_programs,
        }
        return ["is a superuser"] if self.superuser else [name for name, held in named.items() if held]


def probe(dsn: str) -> PostgresFacts:
    """Connect once and look.

    Raises
    ------
    ConnectionLostError
        PostgreSQL cannot be reached.
    """
    with translated(), psycopg.connect(dsn, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S) as connection:
        return look(connection)


def unreachable(dsn: str) -> bool:
    """Tell whether PostgreSQL cannot be connected to just now, on a connection of its own."""
    try:
        with translated(), psycopg.connect(dsn, connect_timeout=PROBE_TIMEOUT_S):
            return False
    except PgflightError:
        return True


def require_safe_login(facts: PostgresFacts, *, allow_superuser: bool) -> None:
    """Refuse a client's login for what the server's own would be refused for.

    Raises
    ------
    ForbiddenError
        Naming the power.
    """
    if facts.dangers and not allow_superuser:
        raise ForbiddenError(f"the PostgreSQL role {facts.role!r} {' and '.join(facts.dangers)}: not let in")


def look(connection: psycopg.Connection[tuple[Any, ...]]) -> PostgresFacts:
    """Return what there is to know of a connection's server and role."""
    row = connection.execute(ROLE_SQL).fetchone()
    assert row is not None  # noqa: S101 (the role and the database of a session exist)
    version = connection.info.server_version
    return PostgresFacts(
        server_version=f"{version // 10000}.{version % 10000}",
        role=row[0],
        superuser=row[1],
        reads_server_files=row[2],
        writes_server_files=row[3],
        executes_programs=row[4],
        database=row[5],
        encoding=row[6],
        in_recovery=row[7],
        encrypted=connection.pgconn.ssl_in_use,
        reader=reader_name(connection),
    )


def require_safe(facts: PostgresFacts, *, allow_superuser: bool) -> None:
    """Refuse a role that could read or write what its tables do not hold.

    Raises
    ------
    ConfigError
        Naming the power, and the way out.
    """
    if facts.dangers and not allow_superuser:
        raise ConfigError(
            f"the PostgreSQL role {facts.role!r} {' and '.join(facts.dangers)}, so a client's query could too; "
            "connect as an ordinary role, or pass --allow-superuser"
        )


def versions() -> dict[str, str]:
    """Return the versions of everything that matters for a bug report."""
    found = {name: _version(name) for name in PACKAGES}
    libpq = pq.version()
    return found | {
        "libpq": f"{libpq // 10000}.{libpq % 10000}",
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed as a package"  # run from a source tree on the path


def describe(
    backend: HostBackend | CudaBackend, facts: PostgresFacts | None, problem: str | None = None
) -> dict[str, Any]:
    """Return what ``info`` shows, ready for JSON."""
    return {
        "versions": versions(),
        "backend": {"name": backend.name, "reason": backend.reason, "compiled": is_compiled()},
        "postgresql": {"reachable": facts is not None}
        | (asdict(facts) | {"dangers": facts.dangers} if facts else {"problem": problem}),
    }
