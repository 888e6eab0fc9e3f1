"""People with PostgreSQL passwords, and a server that asks for them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psycopg
import pytest

from demo.postgres import EmbeddedPostgres
from tests.helpers.logins import PASSWORDS
from tests.helpers.server import ServerProcess


@pytest.fixture(scope="session")
def people(postgres_tls: EmbeddedPostgres) -> Iterator[EmbeddedPostgres]:
    """A server where alice and bob each have a table that the other may not read; mallory is a superuser."""
    with postgres_tls.connect(user="postgres") as connection:
        for name, password in PASSWORDS.items():
            connection.execute(f"create role {name} login {'superuser' if name == 'mallory' else ''}")
            connection.execute(
                psycopg.sql.SQL("alter role {} password {}").format(psycopg.sql.Identifier(name), password)
            )
            connection.execute(f"create schema {name} authorization {name}")
            connection.execute(f"set role {name}")
            connection.execute(
                f"create table {name}.own as select i::int4 as n, '{name}' as who from generate_series(1, 50000) i"
            )
            connection.execute("reset role")
    yield postgres_tls
    with postgres_tls.connect(user="postgres") as connection:
        for name in PASSWORDS:
            connection.execute(f"drop schema {name} cascade")
            connection.execute(f"drop role {name}")


@pytest.fixture(scope="session")
def password_server(people: EmbeddedPostgres) -> Iterator[ServerProcess]:
    """Asks for PostgreSQL passwords."""
    with ServerProcess(people.dsn(), "--login", "postgres", "--login-recheck-s", "1") as server:
        yield server
        said = json.dumps(server.log, ensure_ascii=False)
    assert not [password for password in PASSWORDS.values() if password in said]
