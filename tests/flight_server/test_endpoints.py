"""Several endpoints, one snapshot: shares add up, can be read again and on any replica, and end in time."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import psycopg
import pyarrow as pa
import pytest
from google.protobuf.wrappers_pb2 import BytesValue
from pyarrow import flight

from demo.postgres import EmbeddedPostgres
from tests.helpers.server import ServerProcess
from tests.helpers.waiting import eventually

ROWS = 60_000
HELD = """select count(*) from pg_stat_activity
          where application_name = 'pgflight' and state like 'idle in transaction%'"""
IDLE_DEADLINE_S = 1.0


def plan(client: flight.FlightClient, table: str = "ends.t", **options: object) -> flight.FlightInfo:
    command = {"table": table, "options": {"endpoints": 4, **options}}
    return client.get_flight_info(flight.FlightDescriptor.for_command(json.dumps(command).encode()))


def rows(client: flight.FlightClient, endpoint: flight.FlightEndpoint) -> list[int]:
    return client.do_get(endpoint.ticket).read_all()["id"].to_pylist()


def act(client: flight.FlightClient, name: str, message: bytes) -> bytes:
    body = BytesValue(value=message).SerializeToString()
    (result,) = client.do_action(flight.Action(name, body))
    return result.body.to_pybytes()


def held(database: psycopg.Connection) -> int:
    row = database.execute(HELD).fetchone()
    assert row is not None
    return int(row[0])


def released(database: psycopg.Connection) -> bool:
    return eventually(lambda: held(database), lambda count: count == 0, IDLE_DEADLINE_S) == 0


@pytest.fixture(scope="module")
def tables(postgres: EmbeddedPostgres) -> Iterator[None]:
    with postgres.connect() as connection:
        connection.execute(
            f"""
            create schema ends;
            create table ends.t (id int8 not null, pad text);
            insert into ends.t select g, repeat('x', 100) from generate_series(1, {ROWS}) g;
            create table ends.p (id int8 not null, pad text) partition by hash (id);
            create table ends.p0 partition of ends.p for values with (modulus 2, remainder 0);
            create table ends.p1 partition of ends.p for values with (modulus 2, remainder 1);
            insert into ends.p select * from ends.t;
            create table ends.small as select 1 as id;
            """
        )
        yield
        connection.execute("drop schema ends cascade")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "signing"
    file.write_text("shared by the replicas")
    return file


@pytest.fixture(scope="module")
def replicas(postgres: EmbeddedPostgres, tables: None, key: Path) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    flags = ("--signing-key-file", str(key), "--max-connections", "12")
    with ServerProcess(postgres.dsn(), *flags) as one, ServerProcess(postgres.dsn(), *flags) as two:
        yield one, two


@pytest.fixture
def clients(
    replicas: tuple[ServerProcess, ServerProcess], database: psycopg.Connection
) -> Iterator[tuple[flight.FlightClient, flight.FlightClient]]:
    """Clients of both replicas; nothing may be held when a test begins."""
    with flight.connect(replicas[0].uri) as one, flight.connect(replicas[1].uri) as two:
        yield one, two
    eventually(lambda: held(database), lambda count: count == 0)


@pytest.mark.parametrize("options", [{}, {"streams": 2}, {"streams": 2, "ordered": True}])
@pytest.mark.parametrize("table", ["ends.t", "ends.p"])
def test_shares_are_one_snapshot_on_any_replica(
    clients: tuple[flight.FlightClient, flight.FlightClient],
    database: psycopg.Connection,
    table: str,
    options: dict[str, object],
) -> None:
    database.execute("truncate ends.p, ends.t")
    for name in ("ends.t", "ends.p"):
        database.execute(f"insert into {name} select g, repeat('x', 100) from generate_series(1, {ROWS}) g")
    info = plan(clients[0], table, **options)
    assert len(info.endpoints) == 4
    facts = json.loads(info.app_metadata)
    assert facts["endpoints"] == 4
    assert facts["snapshot"]
    database.execute(f"update {table} set id = id + {ROWS} where id % 3 = 0; delete from {table} where id % 7 = 0")
    shares = [rows(clients[index % 2], endpoint) for index, endpoint in enumerate(info.endpoints)]
    again = [rows(clients[1 - index % 2], endpoint) for index, endpoint in enumerate(info.endpoints)]
    assert all(shares)
    assert sorted(chain(*shares)) == list(range(1, ROWS + 1))
    assert [sorted(share) for share in shares] == [sorted(share) for share in again]
    if options.get("ordered") and table == "ends.t":
        assert info.ordered
        assert list(chain(*shares)) == list(range(1, ROWS + 1))
    for client in clients:
        assert act(client, "CancelFlightInfo", info.serialize()) == b"\x08\x01"
    assert released(database)


def test_a_statement_is_shared_too(
    clients: tuple[flight.FlightClient, flight.FlightClient], database: psycopg.Connection
) -> None:
    command = {"sql": "select id from ends.t where id > 10", "options": {"endpoints": 3}}
    info = clients[0].get_flight_info(flight.FlightDescriptor.for_command(json.dumps(command).encode()))
    assert len(info.endpoints) == 3
    expected = [row[0] for row in database.execute("select id from ends.t where id > 10 order by 1")]
    assert sorted(chain(*(rows(clients[1], one) for one in info.endpoints))) == expected
    for client in clients:
        act(client, "CancelFlightInfo", info.serialize())


@pytest.mark.parametrize("table", ["ends.small", "pg_catalog.pg_tables"])
def test_what_cannot_be_cut_has_one_endpoint(
    clients: tuple[flight.FlightClient, flight.FlightClient], database: psycopg.Connection, table: str
) -> None:
    info = plan(clients[0], table)
    assert len(info.endpoints) == 1
    assert info.endpoints[0].expiration_time is None
    assert released(database)
    assert act(clients[0], "CancelFlightInfo", info.serialize()) == b"\x08\x03"
    with pytest.raises(pa.ArrowInvalid, match="nothing to renew"):
        act(clients[0], "RenewFlightEndpoint", info.endpoints[0].serialize())


def test_after_cancel_the_ticket_is_dead(
    clients: tuple[flight.FlightClient, flight.FlightClient], database: psycopg.Connection
) -> None:
    info = plan(clients[0])
    assert held(database) == 1
    stream = clients[0].do_get(info.endpoints[0].ticket)
    act(clients[0], "CancelFlightInfo", info.serialize())
    with pytest.raises(KeyError, match="cancelled"):
        stream.read_all()
    assert released(database)
    for client in clients:
        with pytest.raises(KeyError, match="plan the read again"):
            rows(client, info.endpoints[1])
        with pytest.raises(KeyError, match="plan the read again"):
            act(client, "RenewFlightEndpoint", info.endpoints[1].serialize())


def test_leases_end_when_nobody_reads(
    postgres: EmbeddedPostgres, tables: None, database: psycopg.Connection
) -> None:
    with (
        ServerProcess(postgres.dsn(), "--snapshot-lease-s", "1.5") as server,
        flight.connect(server.uri) as client,
    ):
        info = plan(client)
        expires = info.endpoints[0].expiration_time.as_py().timestamp()
        assert 0 < expires - time.time() <= 1.5
        server.wait_for("snapshot ended", reason="nobody read")
        assert time.time() >= expires - 0.1
        assert released(database)
        with pytest.raises(KeyError, match="plan the read again"):
            rows(client, info.endpoints[0])


def test_renewing_and_reading_prolong_a_lease(postgres: EmbeddedPostgres, tables: None) -> None:
    with ServerProcess(postgres.dsn(), "--snapshot-lease-s", "2", "--snapshot-max-s", "5") as server:
        with flight.connect(server.uri) as client:
            info = plan(client)
            last = info.endpoints[0]
            begun = time.monotonic()
            while time.monotonic() - begun < 3.0:
                renewed = flight.FlightEndpoint.deserialize(act(client, "RenewFlightEndpoint", last.serialize()))
                assert renewed.expiration_time.as_py() >= last.expiration_time.as_py()
                last = renewed
                time.sleep(0.5)
            assert len(rows(client, last)) > 0
            server.wait_for("snapshot ended")
            assert time.monotonic() - begun < 6.0


def test_too_many_snapshots_are_refused(postgres: EmbeddedPostgres, tables: None) -> None:
    with ServerProcess(postgres.dsn(), "--max-snapshots", "2") as server, flight.connect(server.uri) as client:
        infos = [plan(client), plan(client)]
        with pytest.raises(flight.FlightUnavailableError, match="2 snapshots are held"):
            plan(client)
        assert json.loads(next(client.do_action("info")).body.to_pybytes())["snapshots"]["held"] == 2
        act(client, "CancelFlightInfo", infos[0].serialize())
        assert len(plan(client).endpoints) == 4
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_the_holders_death_ends_the_snapshot(
    clients: tuple[flight.FlightClient, flight.FlightClient],
    database: psycopg.Connection,
    postgres: EmbeddedPostgres,
) -> None:
    info = plan(clients[0])
    with postgres.connect(user="postgres") as superuser:
        superuser.execute(HELD.replace("count(*)", "pg_terminate_backend(pid)"))
    with pytest.raises(KeyError, match="plan the read again"):
        rows(clients[1], info.endpoints[0])
    act(clients[0], "CancelFlightInfo", info.serialize())
    assert rows(clients[0], plan(clients[0], endpoints=1).endpoints[0])


@pytest.mark.parametrize("joined", [False, True])
def test_a_replica_is_killed(
    postgres: EmbeddedPostgres, key: Path, tables: None, database: psycopg.Connection, joined: bool
) -> None:
    """A replica that has read under the lease holds the snapshot itself; one that has not says so."""
    flags = ("--signing-key-file", str(key), "--snapshot-lease-s", "2")
    with ServerProcess(postgres.dsn(), *flags) as survivor, flight.connect(survivor.uri) as client:
        with ServerProcess(postgres.dsn(), *flags) as planner, flight.connect(planner.uri) as first:
            expected = [row[0] for row in database.execute("select id from ends.t order by id")]
            info = plan(first)
            found = rows(client, info.endpoints[0]) if joined else []
            planner.signal(signal.SIGKILL)
            planner.wait()
        eventually(lambda: held(database), lambda count: count == (1 if joined else 0))
        if not joined:
            with pytest.raises(KeyError, match="plan the read again"):
                rows(client, info.endpoints[0])
            return
        for endpoint in info.endpoints[1:]:
            found += rows(client, endpoint)
        assert sorted(found) == expected


def test_waiting_ddl_ends_the_lease(
    clients: tuple[flight.FlightClient, flight.FlightClient],
    database: psycopg.Connection,
    postgres: EmbeddedPostgres,
) -> None:
    """A held snapshot may not keep DDL and everybody behind it waiting for as long as its lease."""
    database.execute("create table ends.ddl as select * from ends.t")
    info = plan(clients[0], "ends.ddl")

    def alter() -> None:
        with postgres.connect() as connection:
            connection.execute("alter table ends.ddl add column more int")

    waiting = threading.Thread(target=alter)
    waiting.start()
    eventually(lambda: database.execute("select count(*) from pg_locks where not granted").fetchone() != (0,))
    with pytest.raises(KeyError, match="DDL waits"):
        rows(clients[0], info.endpoints[0])
    waiting.join(10)
    assert not waiting.is_alive()
    assert released(database)


def test_a_share_is_not_read_on_another_server(
    clients: tuple[flight.FlightClient, flight.FlightClient], key: Path, postgres_restartable: EmbeddedPostgres
) -> None:
    """The same key before another PostgreSQL, where a snapshot of that name may exist."""
    with postgres_restartable.connect() as connection:
        connection.execute("create schema ends; create table ends.t (id int8 not null, pad text)")
        connection.execute(f"insert into ends.t select g, repeat('x', 100) from generate_series(1, {ROWS}) g")
    flags = ("--signing-key-file", str(key))
    with ServerProcess(postgres_restartable.dsn(), *flags) as other, flight.connect(other.uri) as client:
        foreign = plan(clients[0])
        own = plan(client)
        with pytest.raises(KeyError, match="plan the read again"):
            rows(client, foreign.endpoints[0])
        assert rows(client, own.endpoints[0])
    act(clients[0], "CancelFlightInfo", foreign.serialize())


def test_locations_take_turns(postgres: EmbeddedPostgres, key: Path, tables: None) -> None:
    flags = ("--signing-key-file", str(key), "--replicas", "grpc://a:1, grpc://b:2")
    with ServerProcess(postgres.dsn(), *flags) as server, flight.connect(server.uri) as client:
        locations = [[one.uri.decode() for one in endpoint.locations] for endpoint in plan(client).endpoints]
    assert locations == [["grpc://a:1", "grpc://b:2"], ["grpc://b:2", "grpc://a:1"]] * 2


@pytest.mark.parametrize("body", [b"", b"\xff", b"\x0a\x03abc"])
@pytest.mark.parametrize("action", ["CancelFlightInfo", "RenewFlightEndpoint"])
def test_malformed_actions(
    clients: tuple[flight.FlightClient, flight.FlightClient], action: str, body: bytes
) -> None:
    with pytest.raises((pa.ArrowInvalid, flight.FlightUnauthorizedError)):
        list(clients[0].do_action(flight.Action(action, body)))
