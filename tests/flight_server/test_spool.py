"""Results served again from disk: the same rows, nobody else's, never damaged, never too old, within their room."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pyarrow as pa
import pytest
from pyarrow import flight

from demo.postgres import EmbeddedPostgres
from tests.helpers.server import ServerProcess
from tests.helpers.waiting import eventually

ROWS = 60_000


def read(client: flight.FlightClient, table: str = "spooled.t", **options: object) -> pa.Table:
    command = {"table": table, "options": {"max_age_s": 600, **options}}
    return client.do_get(flight.Ticket(json.dumps(command).encode())).read_all()


def act(client: flight.FlightClient, name: str, body: bytes = b"") -> object:
    (result,) = client.do_action(flight.Action(name, body))
    return json.loads(result.body.to_pybytes())


def next_read(server: ServerProcess) -> dict[str, object]:
    """Return the log line of the next read; a test looks at all of its own."""
    return server.wait_for("read")


@pytest.fixture(scope="module")
def tables(postgres: EmbeddedPostgres) -> Iterator[None]:
    with postgres.connect() as connection:
        connection.execute(
            f"""
            create schema spooled;
            create table spooled.t as select g as id, 'n' || g as name, g / 8.0 as n, now() - g * interval '1 s' as at,
                case when g % 3 = 0 then array[g] end as a, repeat('x', 90) as pad from generate_series(1, {ROWS}) g;
            create table spooled.empty (a int);
            """
        )
        yield
        connection.execute("drop schema spooled cascade")


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """A directory for a server of the test's own."""
    return tmp_path / "spool"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the server that tests share."""
    return tmp_path_factory.mktemp("shared") / "spool"


@pytest.fixture(scope="module")
def server(postgres: EmbeddedPostgres, tables: None, shared: Path) -> Iterator[ServerProcess]:
    with ServerProcess(postgres.dsn(), "--spool-dir", str(shared)) as process:
        yield process


@pytest.fixture
def client(server: ServerProcess) -> Iterator[flight.FlightClient]:
    """A client of the shared server, whose spool is empty."""
    with flight.connect(server.uri) as connected:
        act(connected, "spool.drop")
        server.forget()
        yield connected


@pytest.mark.parametrize(
    "options", [{"streams": 1}, {"streams": 4}, {"streams": 1, "framing": "copy"}, {"profile": "plain"}], ids=str
)
@pytest.mark.parametrize("table", ["spooled.t", "spooled.empty"])
def test_the_second_read_is_served_from_disk(
    server: ServerProcess, client: flight.FlightClient, table: str, options: dict[str, object]
) -> None:
    first = read(client, table, **options)
    assert next_read(server)["kept"] is True
    again = read(client, table, **options, batch_bytes=65536)
    line = next_read(server)
    assert line["reader"] == "spool"
    assert "backend_pid" not in line
    assert again.schema.equals(first.schema, check_metadata=True)
    if first.num_rows:
        assert again.sort_by("id").equals(first.sort_by("id"))
    assert again.num_rows == first.num_rows == line["rows"]
    assert len(act(client, "spool.list")) == 1


def test_it_serves_without_postgresql(spool: Path) -> None:
    with EmbeddedPostgres.start() as postgres, ServerProcess(postgres.dsn(), "--spool-dir", str(spool)) as server:
        with flight.connect(server.uri) as client:
            command = b'{"sql": "select g from generate_series(1, 1000) g", "options": {"max_age_s": 60}}'
            first = client.do_get(flight.Ticket(command)).read_all()
            postgres.stop()
            info = client.get_flight_info(flight.FlightDescriptor.for_command(command))
            assert json.loads(info.app_metadata)["why"] == "kept in the spool"
            assert client.do_get(info.endpoints[0].ticket).read_all().equals(first)


def test_only_what_is_asked_for_is_kept_or_served(
    server: ServerProcess, client: flight.FlightClient, database: psycopg.Connection
) -> None:
    assert read(client, max_age_s=0).num_rows == ROWS
    assert act(client, "spool.list") == []
    read(client)
    database.execute("insert into spooled.t (id) values (0)")
    try:
        assert read(client).num_rows == ROWS
        assert read(client, max_age_s=0).num_rows == ROWS + 1
        assert read(client, max_age_s=0.001).num_rows == ROWS + 1  # too old: read anew, and kept
        assert read(client).num_rows == ROWS + 1
        assert len(act(client, "spool.list")) == 1
        (entry,) = act(client, "spool.list")
        assert act(client, "spool.drop", b"another") == {"dropped": 0}
        assert act(client, "spool.drop", entry["key"].encode()) == {"dropped": 1}
        assert act(client, "spool.list") == []
    finally:
        database.execute("delete from spooled.t where id = 0")


def test_different_requests_are_different_entries(client: flight.FlightClient) -> None:
    plain = read(client, profile="plain").schema
    assert not read(client, numeric="float64").schema.equals(plain)
    command = b'{"table": "spooled.t", "columns": ["id"], "where": "id < 11", "options": {"max_age_s": 600}}'
    for _ in range(2):
        assert client.do_get(flight.Ticket(command)).read_all()["id"].to_pylist() == list(range(1, 11))
    assert len(act(client, "spool.list")) == 3


@pytest.mark.parametrize("damage", ["flip", "cut", "index", "missing"])
def test_a_damaged_result_is_read_anew(
    server: ServerProcess, client: flight.FlightClient, shared: Path, damage: str
) -> None:
    first = read(client, streams=1)
    next_read(server)
    (wire,) = shared.glob("*/*/stream-0.wire")
    if damage == "flip":
        with wire.open("r+b") as file:
            file.seek(wire.stat().st_size // 2)
            file.write(b"\x55\xaa\x55")
    elif damage == "cut":
        with wire.open("r+b") as file:
            file.truncate(wire.stat().st_size - 100)
    elif damage == "index":
        (wire.parent / "index.json").write_text('{"version": 1}')
    else:
        wire.unlink()
    assert read(client, streams=1).equals(first)
    assert next_read(server)["reader"] != "spool"
    assert read(client, streams=1).equals(first)
    assert next_read(server)["reader"] == "spool"


def test_reads_that_end_early_leave_nothing(
    server: ServerProcess, client: flight.FlightClient, shared: Path
) -> None:
    reader = client.do_get(
        flight.Ticket(b'{"table": "spooled.t", "options": {"max_age_s": 60, "batch_bytes": 16384}}')
    )
    reader.read_chunk()
    reader.cancel()
    next_read(server)
    with pytest.raises(pa.ArrowInvalid):
        command = (
            b'{"sql": "select 1 / (50000 - g) from generate_series(1, 60000) g", "options": {"max_age_s": 60}}'
        )
        client.do_get(flight.Ticket(command)).read_all()
    next_read(server)
    assert list(shared.rglob("*.wire")) == []
    assert act(client, "spool.list") == []


def test_what_does_not_fit_is_served_and_not_kept(postgres: EmbeddedPostgres, tables: None, spool: Path) -> None:
    with ServerProcess(postgres.dsn(), "--spool-dir", str(spool), "--spool-max-mib", "5") as server:
        with flight.connect(server.uri) as client:
            assert read(client).num_rows == ROWS
            assert server.wait_for("read")["kept"] is False
            sizes = []
            for limit in range(20_000, 24_000, 500):
                command = {
                    "table": "spooled.t",
                    "columns": ["id", "pad"],
                    "limit": limit,
                    "options": {"max_age_s": 60},
                }
                assert client.do_get(flight.Ticket(json.dumps(command).encode())).read_all().num_rows == limit
                sizes.append(sum(path.stat().st_size for path in spool.rglob("*.wire")))
            assert 2 << 20 < max(sizes) <= 5 << 20
            assert len(act(client, "spool.list")) == 2


def test_it_outlives_the_server_but_not_its_leftovers(
    postgres: EmbeddedPostgres, tables: None, spool: Path
) -> None:
    with ServerProcess(postgres.dsn(), "--spool-dir", str(spool)) as server, flight.connect(server.uri) as client:
        first = read(client)
        endless = {"sql": "select generate_series(1, 1000000000)", "options": {"max_age_s": 60}}
        reader = client.do_get(flight.Ticket(json.dumps(endless).encode()))
        reader.read_chunk()
        server.signal(signal.SIGKILL)
        server.wait()
    assert list(spool.glob(".partial/*"))
    with ServerProcess(postgres.dsn(), "--spool-dir", str(spool)) as server, flight.connect(server.uri) as client:
        assert not list(spool.glob(".partial/*"))
        again = read(client)
        assert server.wait_for("read")["reader"] == "spool"
        assert again.sort_by("id").equals(first.sort_by("id"))


def test_nobody_gets_anothers_result(postgres: EmbeddedPostgres, tables: None, spool: Path) -> None:
    token = "secret"
    flags = ("--spool-dir", str(spool))
    with ServerProcess(postgres.dsn(), *flags) as server, flight.connect(server.uri) as client:
        read(client)
        assert len(act(client, "spool.list")) == 1
    with ServerProcess(postgres.dsn(), *flags, environment={"PGFLIGHT_AUTH_TOKEN": token}) as server:
        with flight.FlightClient(server.uri) as client:
            options = flight.FlightCallOptions(headers=[(b"authorization", b"Bearer secret")])
            (listed,) = client.do_action(flight.Action("spool.list", b""), options)
            assert json.loads(listed.body.to_pybytes()) == []
            (dropped,) = client.do_action(flight.Action("spool.drop", b""), options)
            assert json.loads(dropped.body.to_pybytes()) == {"dropped": 0}


def test_one_directory_one_server(postgres: EmbeddedPostgres, server: ServerProcess, shared: Path) -> None:
    with pytest.raises(AssertionError, match="another server uses the spool"):
        ServerProcess(postgres.dsn(), "--spool-dir", str(shared))


def test_without_a_spool_the_option_is_refused(postgres: EmbeddedPostgres, tables: None) -> None:
    with ServerProcess(postgres.dsn()) as server, flight.connect(server.uri) as client:
        with pytest.raises(pa.ArrowInvalid, match="no spool"):
            read(client)


def test_files_are_read_side_by_side(server: ServerProcess, client: flight.FlightClient) -> None:
    """What several streams kept is read by as many, unless one is asked for; the rows are the same."""
    read(client, streams=3)
    kept = next_read(server)
    tables = []
    for streams in (1, 2, 3):
        tables.append(read(client, streams=streams, transport="single" if streams == 3 else "pinned"))
        line = next_read(server)
        assert line["reader"] == "spool"
        assert line["streams"] == min(streams, kept["streams"])
        assert (line["rows"], line["wire_bytes"]) == (ROWS, kept["wire_bytes"])
    assert all(table.sort_by("id").equals(tables[0].sort_by("id")) for table in tables)


def test_a_stopped_read_of_several_files_leaves_no_thread(
    server: ServerProcess, client: flight.FlightClient
) -> None:
    read(client, streams=3)
    next_read(server)
    read(client, streams=3)
    next_read(server)
    before = server.process.num_threads()
    command = {"table": "spooled.t", "options": {"max_age_s": 600, "streams": 3, "batch_bytes": 16384}}
    for _ in range(5):
        reader = client.do_get(flight.Ticket(json.dumps(command).encode()))
        reader.read_chunk()
        reader.cancel()
        next_read(server)
    eventually(lambda: server.process.num_threads() <= before + 2)


@pytest.mark.parametrize("times", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_while_spooling_nothing_torn_is_served(
    postgres: EmbeddedPostgres, tables: None, spool: Path, times: int
) -> None:
    """A server is killed at some moment of writing; the next one serves from PostgreSQL, or what is whole."""
    for number in range(times):
        with ServerProcess(postgres.dsn(), "--spool-dir", str(spool)) as server:
            with flight.connect(server.uri) as client:
                first = read(client) if number == 0 else None
                large = {
                    "sql": f"select g, repeat('x', 500) as t from generate_series(1, {40_000 + number}) g",
                    "options": {"max_age_s": 600, "streams": 1},
                }
                reader = client.do_get(flight.Ticket(json.dumps(large).encode()))
                for _ in range(1 + number % 12):
                    reader.read_chunk()
                server.signal(signal.SIGKILL)
                server.wait()
        with ServerProcess(postgres.dsn(), "--spool-dir", str(spool)) as server:
            with flight.connect(server.uri) as client:
                assert list(spool.glob(".partial/*")) == []
                again = client.do_get(flight.Ticket(json.dumps(large).encode())).read_all()
                assert again["g"].to_pylist() == list(range(1, 40_001 + number))
                if first is not None:
                    assert read(client).sort_by("id").equals(first.sort_by("id"))
                    first = None
