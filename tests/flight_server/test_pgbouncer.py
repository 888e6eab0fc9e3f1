"""A real PgBouncer in transaction mode in between: what works then.  Needs `pgbouncer` on PATH, or PGBOUNCER."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pyarrow as pa
import pytest
from adbc_driver_flightsql import dbapi

import pgflight
from demo.postgres import EmbeddedPostgres
from tests.helpers.server import ServerProcess
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.slow

PROGRAM = os.environ.get("PGBOUNCER") or shutil.which("pgbouncer")
ROWS = 50_000
CONFIG = """
[databases]
demo = host=127.0.0.1 port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own}
auth_type = trust
auth_file = {users}
pool_mode = transaction
default_pool_size = 8
query_wait_timeout = 10
unix_socket_dir =
logfile = {log}
"""


@pytest.fixture(scope="module")
def bounced(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A DSN that leads through PgBouncer."""
    if PROGRAM is None:
        pytest.fail("there is no pgbouncer on PATH; PGBOUNCER can name it")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        own = probe.getsockname()[1]
    directory = postgres.socket_directory / "bouncer"  # whoever PgBouncer runs as may read it
    directory.mkdir()
    directory.chmod(0o777)
    users, config, log = (directory / name for name in ("users.txt", "pgbouncer.ini", "log"))
    users.write_text('"pgflight" ""\n')
    config.write_text(CONFIG.format(port=postgres.port, own=own, users=users, log=log))
    as_user = ["-u", "nobody"] if os.geteuid() == 0 else []
    process = subprocess.Popen([PROGRAM, "-q", *as_user, str(config)])
    dsn = f"host=127.0.0.1 port={own} user=pgflight dbname=demo"
    try:
        eventually(lambda: _answers(dsn))
        with postgres.connect() as connection:
            connection.execute(
                f"create table bounced as select g as id, repeat('x', 200) as t from generate_series(1, {ROWS}) g".encode()
            )
            connection.execute("analyze bounced")
            yield dsn
            connection.execute("drop table bounced")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(10)


@pytest.fixture(scope="module")
def server(bounced: str) -> Iterator[ServerProcess]:
    with ServerProcess(bounced, "--allow-writes", "--max-connections", "8") as process:
        yield process


def _answers(dsn: str) -> bool:
    try:
        with closing(psycopg.connect(dsn)):
            return True
    except psycopg.Error:
        return False


def test_one_stream(server: ServerProcess) -> None:
    with pgflight.connect(server.uri) as client:
        for _ in range(20):
            assert client.query("select * from bounced", streams=1).to_arrow().num_rows == ROWS
        assert client.query("select $1::int + 1 as a", [41]).to_arrow()["a"].to_pylist() == [42]


def test_several_streams_share_a_snapshot(server: ServerProcess) -> None:
    with pgflight.connect(server.uri) as client:
        assert client.explain("bounced", streams=4)["parts"] > 1
        for _ in range(10):
            found = client.table("bounced", streams=4).to_arrow()
            assert sorted(found["id"].to_pylist()) == list(range(1, ROWS + 1))


def test_partitions(server: ServerProcess) -> None:
    with pgflight.connect(server.uri) as client:
        plan = client.plan("bounced", partitions=3)
        assert len(plan.partitions) > 1
        assert sum(part.read().num_rows for part in plan.partitions) == ROWS


def test_errors_and_cancelled_reads_leave_the_session_usable(server: ServerProcess) -> None:
    with pgflight.connect(server.uri) as client:
        for _ in range(5):
            with pytest.raises(pa.ArrowInvalid, match="division by zero"):
                client.query("select 1 / (g - 9000) from generate_series(1, 10000) g").to_arrow()
            reader = client.query("select g from generate_series(1, 10000000) g", streams=1)
            next(iter(reader))
            reader.cancel()
        assert client.query("select 1 as a").to_arrow().num_rows == 1


def test_flight_sql(server: ServerProcess) -> None:
    with dbapi.connect(server.uri, autocommit=True) as connection, connection.cursor() as cursor:
        for low in (1, 100, 1000):
            cursor.execute("select count(*) from bounced where id >= $1", (low,))
            assert cursor.fetchone() == (ROWS - low + 1,)
        assert "bounced" in str(connection.adbc_get_objects(depth="tables").read_all())


def test_writing(server: ServerProcess) -> None:
    rows = pa.table({"a": list(range(100))})
    with dbapi.connect(server.uri) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("bounced_in", rows, mode="create")
        cursor.adbc_ingest("bounced_temporary", rows, mode="create", temporary=True)
        cursor.execute("select count(*) from bounced_in join bounced_temporary using (a)")
        assert cursor.fetchone() == (100,)
        connection.rollback()
        cursor.execute("select count(*) from pg_class where relname like 'bounced_%'")
        assert cursor.fetchone() == (0,)


def test_nothing_stays_behind(server: ServerProcess, postgres: EmbeddedPostgres) -> None:
    """All that went through PgBouncer has ended; held snapshots alone may be idle in their transactions."""
    query = "select state, query from pg_stat_activity where usename = 'pgflight' and state = 'active'"
    with postgres.connect(user="postgres") as connection:
        eventually(lambda: connection.execute(query).fetchall(), lambda active: active == [])
