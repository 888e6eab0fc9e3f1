"""The demo as its user runs it: one command, two more processes, and nothing left behind."""

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import pgflight
from demo.postgres import EmbeddedPostgres
from demo.server import ROOT, ServerError, ServerProcess
from tests.demo.processes import DEADLINE_S, await_death, family, runs

ROWS = 20_000


def command(data: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "demo", "--rows", str(ROWS), "--data", str(data), "--port", "0", *options]


def finished(data: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(data, *options), capture_output=True, text=True, cwd=ROOT, check=False, timeout=2 * DEADLINE_S
    )


@contextmanager
def staying(data: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A demo that has shown its figures and keeps serving, with its URI."""
    with subprocess.Popen(command(data), stderr=subprocess.PIPE, text=True, cwd=ROOT) as demo:
        assert demo.stderr is not None
        try:
            text = ""
            while "Ctrl-C stops it" not in text:
                line = demo.stderr.readline()
                assert line, f"the demo ended: {text}"
                text += line
            uri = re.search(r"serves it at (\S+)", text)
            assert uri is not None
            yield demo, uri.group(1)
        finally:
            demo.kill()


def test_once_shows_figures_and_ends(open_directory: Path) -> None:
    first = finished(open_directory, "--once")
    assert first.returncode == 0, first.stderr
    assert f"{ROWS:,} rows in" in first.stderr
    assert re.search(r"multiple of raw COPY │ +\d+\.\d\d", first.stderr)
    assert re.search(r"lo_orderkey +│ int64", first.stderr)
    again = finished(open_directory, "--once")
    assert again.returncode == 0, again.stderr


def test_serves_until_interrupted(open_directory: Path) -> None:
    with staying(open_directory) as (demo, uri):
        processes = family(demo.pid)
        with pgflight.connect(uri) as client:
            counted = client.query("SELECT count(*) AS n FROM lineorder").to_arrow()
        assert counted.to_pylist() == [{"n": ROWS}]
        demo.send_signal(signal.SIGINT)
        assert demo.wait(DEADLINE_S) == 0
    assert not any(map(runs, processes))


def test_terminated_it_stops_in_order(open_directory: Path) -> None:
    with staying(open_directory) as (demo, _):
        processes = family(demo.pid)
        demo.terminate()
        assert demo.wait(DEADLINE_S) == 128 + signal.SIGTERM
    assert not any(map(runs, processes))


@pytest.mark.skipif(sys.platform != "linux", reason="parent-death signals are Linux's")
def test_killed_it_leaves_no_process(open_directory: Path) -> None:
    with staying(open_directory) as (demo, _):
        processes = family(demo.pid)
        assert len(processes) > 2
        demo.kill()
        await_death(processes)


def test_a_dead_server_is_told(open_directory: Path) -> None:
    with staying(open_directory) as (demo, _):
        processes = family(demo.pid)
        (server,) = [pid for pid in processes if "flight_server" in Path(f"/proc/{pid}/cmdline").read_text()]
        subprocess.run(["/bin/kill", "-KILL", str(server)], check=True)
        assert demo.stderr is not None
        assert demo.wait(DEADLINE_S) == 1
        assert "error: the server ended with status -9" in demo.stderr.read()
    assert not any(map(runs, processes))


def test_a_taken_port_is_one_clear_line(open_directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        port = occupied.getsockname()[1]
        done = finished(open_directory, "--once", "--port", str(port))
    assert done.returncode == 1
    assert done.stderr == f"error: port {port} of 127.0.0.1 is taken: name another one with --port, or 0 for any\n"
    assert not any(open_directory.iterdir())


def test_unknown_data_set(open_directory: Path) -> None:
    done = finished(open_directory, "--table", "nonsense")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "choose one of lineorder, lineitem" in done.stderr


def test_a_server_that_does_not_start_says_why(server: EmbeddedPostgres, tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="No such option"):
        ServerProcess.start(server.dsn(), log=tmp_path / "server.log", options=["--nonsense"])


def test_read_reports_errors_in_one_line(server: EmbeddedPostgres, tmp_path: Path) -> None:
    with ServerProcess.start(server.dsn(), log=tmp_path / "server.log") as running:
        reading = [sys.executable, "-m", "demo.read", running.uri, "SELECT nonsense"]
        done = subprocess.run(reading, capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.returncode == 1
        assert 'column "nonsense" does not exist' in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
    assert not runs(running.pid)
