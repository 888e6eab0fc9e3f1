"""The pgflight server under test: always a process of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pyarrow import flight

from demo.postgres import EmbeddedPostgres
from tests.helpers.server import ServerProcess


@pytest.fixture(scope="session")
def server(postgres: EmbeddedPostgres) -> Iterator[ServerProcess]:
    """One server for the tests that leave it as they found it."""
    with ServerProcess(postgres.dsn()) as process:
        yield process


@pytest.fixture
def client(server: ServerProcess) -> Iterator[flight.FlightClient]:
    """A raw Flight client of that server."""
    with flight.connect(server.uri) as connected:
        yield connected
