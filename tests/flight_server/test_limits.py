"""Past its limits the server refuses, and says so; what is answered at once is still answered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest
from adbc_driver_flightsql import dbapi
from pyarrow import flight

from demo.postgres import EmbeddedPostgres
from tests.helpers.server import ServerProcess

STREAMS = 6
FLAGS = ("--max-connections", str(STREAMS + 2), "--connection-wait-s", "1", "--memory-mib", "1024")


@pytest.fixture
def full(postgres: EmbeddedPostgres, database: psycopg.Connection) -> Iterator[ServerProcess]:
    """A server whose streams are all taken, by clients that do not read on."""
    database.execute("create table scratch.long (id int8, pad text)")
    database.execute("insert into scratch.long select g, repeat('x', 1000) from generate_series(1, 60000) g")
    with ServerProcess(postgres.dsn(), *FLAGS) as server, ExitStack() as stack:
        for _ in range(STREAMS):
            client = stack.enter_context(flight.connect(server.uri))
            reader = client.do_get(flight.Ticket(b'{"table": "scratch.long", "options": {"streams": 1}}'))
            reader.read_chunk()
            stack.callback(reader.cancel)
        yield server


def test_metadata_is_answered_beside_streams(full: ServerProcess) -> None:
    with flight.connect(full.uri) as client:
        for _ in range(5):
            assert client.get_flight_info(flight.FlightDescriptor.for_path("scratch", "long")).endpoints
            assert client.get_schema(flight.FlightDescriptor.for_command(b"select 1 as a")).schema.names == ["a"]
            assert any(info.descriptor.path[-1] == b"long" for info in client.list_flights())
    with dbapi.connect(full.uri, autocommit=True) as connection:
        assert connection.adbc_get_table_schema("long", db_schema_filter="scratch").names == ["id", "pad"]


def test_streams_are_refused(full: ServerProcess) -> None:
    with flight.connect(full.uri) as client, pytest.raises(flight.FlightUnavailableError, match="connection"):
        client.do_get(flight.Ticket(b"select 1")).read_all()
