"""People with PostgreSQL passwords, and what PostgreSQL knows of them."""

from __future__ import annotations

import base64
import re

from demo.postgres import EmbeddedPostgres
from tests.helpers.server import ServerProcess

PASSWORDS = {"alice": "alice's: secret", "bob": "пароль bob", "mallory": "mallory's own"}


def basic(user: str, password: str) -> str:
    """An ``authorization`` header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def backends(postgres: EmbeddedPostgres, user: str) -> int:
    """Count a role's connections."""
    with postgres.connect(user="postgres") as connection:
        found = connection.execute("select count(*) from pg_stat_activity where usename = %s", [user]).fetchone()
        assert found is not None
        return int(found[0])


def failed_logins(postgres: EmbeddedPostgres) -> int:
    """Count the wrong passwords that PostgreSQL itself has seen."""
    text = (postgres.directory / "postgres.log").read_text(errors="replace")
    return len(re.findall("password authentication failed", text))


def connections(postgres: EmbeddedPostgres, server: ServerProcess) -> int:
    """Count the connections that a server has to PostgreSQL, whoever it logged in as."""
    found = server.process.net_connections("tcp")
    return sum(each.status == "ESTABLISHED" and each.raddr.port == postgres.port for each in found if each.raddr)
