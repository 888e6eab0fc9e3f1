"""PostgreSQL writes the file itself: the same rows, for statements that mean the same to the login that writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from pyarrow import flight

from demo.postgres import EmbeddedPostgres
from tests.helpers.server import ServerProcess
from tests.helpers.waiting import eventually

ROWS = 60_000
WRITER = "pgflight_files"


def read(
    client: flight.FlightClient, what: dict[str, Any], transport: str = "file", **options: object
) -> pa.Table:
    command = what | {"options": {"transport": transport, "streams": 1, **options}}
    return client.do_get(flight.Ticket(json.dumps(command).encode())).read_all()


@pytest.fixture(scope="module")
def tables(postgres: EmbeddedPostgres) -> Iterator[None]:
    with postgres.connect(user="postgres") as boss:
        boss.execute(f"create role {WRITER} login password '{postgres.password or 'x'}'")
        boss.execute(f"grant pg_write_server_files to {WRITER}")
    with postgres.connect() as connection:
        connection.execute(
            f"""
            create schema filed;
            create table filed.t as select g as id, 'n' || g as name, g::numeric(12, 2) as n, case when g % 3 = 0 then g end
                as a, repeat('x', g % 50) as pad, inet '10.0.0.1' + g as i from generate_series(1, {ROWS}) g;
            create table filed.empty (a int);
            create table filed.private as select 1 as a;
            create table filed.guarded as select g as a, case when g % 2 = 0 then '{WRITER}' else 'pgflight' end as who
                from generate_series(1, 10) g;
            alter table filed.guarded enable row level security;
            create policy own on filed.guarded using (who = current_user);
            create policy all_for_writer on filed.guarded to {WRITER} using (true);
            create table filed.huge as select repeat('x', 1000) as x from generate_series(1, 300000) g;
            grant usage on schema filed to {WRITER};
            grant select on filed.t, filed.empty, filed.guarded, filed.huge to {WRITER};
            """
        )
        yield
        connection.execute("drop schema filed cascade")
    with postgres.connect(user="postgres") as boss:
        boss.execute(f"drop role {WRITER}")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that the system users of PostgreSQL and of the server share."""
    found = tmp_path_factory.mktemp("files")
    for path in (found, *found.parents):
        if path.owner() == found.owner() and path.is_relative_to(found.parents[2]):
            path.chmod(0o777)
    return found


@pytest.fixture(scope="module")
def flags(postgres: EmbeddedPostgres, tables: None, directory: Path) -> tuple[str, ...]:
    return ("--file-dsn", postgres.dsn(user=WRITER), "--file-dir", str(directory))


@pytest.fixture(scope="module")
def server(postgres: EmbeddedPostgres, flags: tuple[str, ...]) -> Iterator[ServerProcess]:
    with ServerProcess(postgres.dsn(), *flags) as process:
        yield process


@pytest.fixture
def client(server: ServerProcess) -> Iterator[flight.FlightClient]:
    server.forget()
    with flight.connect(server.uri) as connected:
        yield connected


@pytest.mark.parametrize(
    "what",
    [
        {"table": "filed.t"},
        {"table": "filed.t", "columns": ["pad", "id"], "where": "id % 7 = 1"},
        {"sql": "select name, id * 2 as twice from filed.t where id > 50"},
        {"table": "filed.empty"},
    ],
    ids=str,
)
def test_the_rows_are_the_same(
    server: ServerProcess, client: flight.FlightClient, directory: Path, what: dict[str, Any]
) -> None:
    expected = read(client, what, "pinned")
    server.wait_for("read")
    found = read(client, what)
    line = server.wait_for("read")
    assert found.schema.equals(expected.schema, check_metadata=True)
    assert found.equals(expected)
    moved = line["moved"]
    assert (line["transport"], line["framing"], line["rows"]) == ("file", "file", expected.num_rows)
    assert moved["read_bytes"] == moved["written_bytes"] > 19
    assert moved["received_bytes"] < 100, "the rows did not come by the socket"
    assert list(directory.glob("*.copy")) == []


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ({"sql": "select current_user as u, id from filed.t"}, "not proven"),
        ({"sql": "select count(*) from filed.t"}, "not proven"),
        ({"sql": "select * from filed.t limit 5"}, "not proven"),
        ({"sql": "select id from filed.t where id = $1", "params": [5]}, "not proven"),
        ({"table": "filed.guarded"}, "not proven"),
        ({"table": "filed.private"}, "permission denied"),
    ],
    ids=str,
)
def test_what_could_mean_something_else_is_refused(
    client: flight.FlightClient, what: dict[str, Any], why: str
) -> None:
    with pytest.raises((pa.ArrowInvalid, flight.FlightUnauthorizedError), match=why):
        read(client, what)


def test_nobody_reads_what_only_the_writer_may(
    postgres: EmbeddedPostgres, client: flight.FlightClient, server: ServerProcess
) -> None:
    with postgres.connect(user="postgres") as boss:
        boss.execute("create table public.secret as select 1 as a")
        boss.execute(f"grant select on public.secret to {WRITER}")
        try:
            with pytest.raises((flight.FlightUnauthorizedError, pa.ArrowInvalid), match=r"denied|not proven"):
                read(client, {"table": "public.secret"})
        finally:
            boss.execute("drop table public.secret")


def test_a_stopped_read_stops_postgresql_and_leaves_no_file(
    postgres: EmbeddedPostgres, client: flight.FlightClient, directory: Path
) -> None:
    writing = (
        "select count(*) from pg_stat_activity where usename = %s and state = 'active' and query like 'COPY%%'"
    )
    command = json.dumps({"table": "filed.huge", "options": {"transport": "file", "timeout_s": 0.2}}).encode()
    with postgres.connect(user="postgres") as boss:
        try:
            client.do_get(flight.Ticket(command)).read_all()
        except flight.FlightTimedOutError:
            pass
        eventually(lambda: boss.execute(writing, [WRITER]).fetchone() == (0,))
    assert list(directory.glob("*.copy")) == []


def test_other_options_that_do_not_go_with_it(client: flight.FlightClient) -> None:
    with pytest.raises(pa.ArrowInvalid, match=r"file.*endpoints"):
        read(client, {"table": "filed.t"}, endpoints=3)


def test_a_directory_that_postgresql_cannot_write_to_is_told(
    postgres: EmbeddedPostgres, flags: tuple[str, ...], tmp_path: Path
) -> None:
    words = (*flags[:3], str(tmp_path / "missing"))
    with pytest.raises(AssertionError, match="file_dir: cannot use"):
        ServerProcess(postgres.dsn(), *words)


def test_unfit_logins_are_refused(postgres: EmbeddedPostgres, flags: tuple[str, ...], tmp_path: Path) -> None:
    for user, why in (("pgflight", "may not write files"), ("postgres", "may do more than write")):
        with pytest.raises(AssertionError, match=why):
            ServerProcess(postgres.dsn(), "--file-dsn", postgres.dsn(user=user), "--file-dir", str(tmp_path))
    with pytest.raises(AssertionError, match="go together"):
        ServerProcess(postgres.dsn(), "--file-dir", str(tmp_path))


def test_leftovers_are_removed_and_the_directory_is_one_servers(
    postgres: EmbeddedPostgres, flags: tuple[str, ...], tmp_path: Path
) -> None:
    left = tmp_path / "pgflight-0123.copy"
    left.write_bytes(b"rows")
    words = (*flags[:3], str(tmp_path))
    with ServerProcess(postgres.dsn(), *words):
        assert not left.exists()
        with pytest.raises(AssertionError, match="another server uses"):
            ServerProcess(postgres.dsn(), *words)


def test_without_the_login_it_is_refused(postgres: EmbeddedPostgres, tables: None) -> None:
    with ServerProcess(postgres.dsn()) as server, flight.connect(server.uri) as client:
        with pytest.raises(pa.ArrowInvalid, match="file_dsn"):
            read(client, {"table": "filed.t"})


def test_the_writer_is_an_ordinary_login(postgres: EmbeddedPostgres, tables: None) -> None:
    with psycopg.connect(postgres.dsn(user=WRITER)) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("select * from filed.private")
