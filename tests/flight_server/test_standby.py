"""Reads from a hot standby, and from a primary and its standby behind one connection string."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pyarrow.compute as pc
import pytest
from pyarrow import flight

from demo.postgres import EmbeddedPostgres
from tests.helpers.server import ServerProcess
from tests.helpers.standby import PRIMARY_SETTINGS, caught_up, hot_standby
from tests.helpers.waiting import eventually
from transport.opening import SessionOptions
from transport.pool import ConnectionPool
from transport.session import Session

ROWS = 60_000


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[EmbeddedPostgres, EmbeddedPostgres]]:
    with EmbeddedPostgres.start(settings=PRIMARY_SETTINGS) as primary, hot_standby(primary) as standby:
        with primary.connect() as connection:
            connection.execute("create table t (id int8 not null, pad text)")
            connection.execute(f"insert into t select g, repeat('x', 100) from generate_series(1, {ROWS}) g")
        eventually(lambda: caught_up(primary, standby))
        yield primary, standby


def info_of(client: flight.FlightClient, **options: object) -> flight.FlightInfo:
    command = json.dumps({"table": "t", "options": options}).encode()
    return client.get_flight_info(flight.FlightDescriptor.for_command(command))


def hang_up_all(*servers: EmbeddedPostgres) -> None:
    """End the sessions of the server under test."""
    for each in servers:
        with each.connect() as connection:
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() "
                "and backend_type = 'client backend' and usename = current_user"
            )


@pytest.mark.parametrize("options", [{"streams": 1}, {"streams": 4}, {"endpoints": 4}])
def test_a_standby_serves_parallel_reads(
    pair: tuple[EmbeddedPostgres, EmbeddedPostgres], options: dict[str, object]
) -> None:
    with ServerProcess(pair[1].dsn()) as server, flight.connect(server.uri) as client:
        info = info_of(client, **options)
        facts = json.loads(info.app_metadata)
        assert max(facts["streams"], facts.get("endpoints", 1)) == next(iter(options.values()))
        ids = [client.do_get(endpoint.ticket).read_all()["id"] for endpoint in info.endpoints]
        assert sum(len(part) for part in ids) == ROWS
        assert sum(pc.sum(part).as_py() for part in ids) == ROWS * (ROWS + 1) // 2


def test_connections_to_both_are_one_stream(pair: tuple[EmbeddedPostgres, EmbeddedPostgres]) -> None:
    """A snapshot of one server cannot be imported in the other: who cannot join leaves, nobody reads wrong."""
    hosts = f"host=127.0.0.1,127.0.0.1 port={pair[0].port},{pair[1].port} load_balance_hosts=random"
    with ServerProcess(f"{hosts} user=pgflight dbname=demo") as server, flight.connect(server.uri) as client:

        def mixed() -> bool:
            (endpoint,) = info_of(client, streams=4).endpoints
            ids = client.do_get(endpoint.ticket).read_all()["id"]
            assert len(ids) == pc.count_distinct(ids).as_py() == ROWS
            left = [line for line in server.log if line.get("event") == "stream left"]
            if not any("another server" in line["reason"] for line in left):
                hang_up_all(*pair)  # chance has led all connections to one of them: once more
                return False
            return True

        eventually(mixed, deadline_s=60.0)
        assert any(line.get("streams") != 4 for line in server.log if line.get("event") == "read")


def test_a_standby_does_not_tell_moments_apart(pair: tuple[EmbeddedPostgres, EmbeddedPostgres]) -> None:
    """Its snapshots do not list what is in progress: two that look the same see different tables."""
    primary, standby = pair
    looks = []
    with (
        primary.connect() as first, primary.connect() as second, primary.connect() as third,
        standby.connect() as reader,
    ):  # fmt: skip
        for name, connection in (("one", first), ("two", second), ("three", third)):
            connection.autocommit = False
            connection.execute(f"create table {name} ()")
        for name, connection in (("three", third), ("two", second)):
            connection.commit()
            eventually(
                lambda name=name: reader.execute("select to_regclass(%s) is not null", [name]).fetchone()[0]
            )
            looks.append(reader.execute("select pg_current_snapshot()::text").fetchone())
    assert looks[0] == looks[1]
    pool = ConnectionPool(standby.dsn())
    with Session(pool, SessionOptions()) as session:
        assert session.moment() is None
    pool.close()
