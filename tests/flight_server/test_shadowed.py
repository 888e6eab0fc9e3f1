"""Types of users that are named like PostgreSQL's and found before them."""

from __future__ import annotations

import json

import psycopg
import pyarrow as pa
import pytest
from pyarrow import flight

from demo.postgres import EmbeddedPostgres
from tests.helpers.server import ServerProcess

SHADOWS = ("text", "int8", "int4", "int2", "oid", "name")


@pytest.fixture
def shadowed(postgres: EmbeddedPostgres, database: psycopg.Connection) -> str:
    """Return the conninfo of sessions that find the impostors first; none of the values casts to them."""
    database.execute(
        "create table scratch.goods (id pg_catalog.int8 primary key, price numeric(8, 2), tags pg_catalog.text[])"
    )
    database.execute("insert into scratch.goods select g, g, array['x'] from generate_series(1, 1000) g")
    for name in SHADOWS:
        database.execute(f"create domain scratch.{name} as point")
    return postgres.dsn(options="-csearch_path=scratch,pg_catalog")


@pytest.mark.parametrize("options", [{}, {"streams": 2}, {"endpoints": 2}])
def test_a_table_is_read_all_the_same(shadowed: str, options: dict[str, int]) -> None:
    with ServerProcess(shadowed) as server, flight.connect(server.uri) as client:
        command = json.dumps({"table": "scratch.goods", "options": options}).encode()
        info = client.get_flight_info(flight.FlightDescriptor.for_command(command))
        ids = [
            value
            for endpoint in info.endpoints
            for value in client.do_get(endpoint.ticket).read_all()["id"].to_pylist()
        ]
        assert sorted(ids) == list(range(1, 1001))
        assert info.schema.field("tags").type == pa.list_(pa.string())
        assert ["scratch", "goods"] in [
            [part.decode() for part in each.descriptor.path] for each in client.list_flights()
        ]
