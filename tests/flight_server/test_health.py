"""Liveness and readiness of a server whose PostgreSQL goes and comes back, and that stops."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

from pyarrow import flight

from demo.postgres import EmbeddedPostgres
from tests.helpers.server import ServerProcess
from tests.helpers.waiting import eventually


def ask(server: ServerProcess, path: str) -> tuple[int, str]:
    port = next(line["http_port"] for line in server.log if line.get("event") == "listening")
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as reply:
            return reply.status, reply.read().decode().strip()
    except urllib.error.HTTPError as failure:
        with failure:
            return failure.code, failure.read().decode().strip()


def test_ready_follows_postgresql() -> None:
    with EmbeddedPostgres.start() as database, ServerProcess(database.dsn(), "--http-listen", "0") as server:
        assert ask(server, "/readyz") == (200, "ready")
        assert ask(server, "/elsewhere") == (404, "not found")
        database.kill()
        eventually(lambda: ask(server, "/readyz"), lambda got: got == (503, "PostgreSQL cannot be reached"))
        assert ask(server, "/healthz") == (200, "ok")
        database.restart()
        eventually(lambda: ask(server, "/readyz"), lambda got: got == (200, "ready"))


def test_a_draining_server_lives_and_is_not_ready(postgres: EmbeddedPostgres) -> None:
    with ServerProcess(postgres.dsn(), "--http-listen", "0", "--drain-grace-s", "30") as server:
        with flight.connect(server.uri) as client:
            reader = client.do_get(flight.Ticket(b"select generate_series(1, 1000000000)"))
            reader.read_chunk()
            server.signal(signal.SIGTERM)
            server.wait_for("draining")
            assert ask(server, "/readyz") == (503, "the server is shutting down")
            assert ask(server, "/healthz") == (200, "ok")
            reader.cancel()
        assert server.wait() == 0


def test_off_unless_set(server: ServerProcess) -> None:
    assert next(line["http_port"] for line in server.log if line.get("event") == "listening") is None


def test_a_taken_port_does_not_start(postgres: EmbeddedPostgres) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "flight_server", "serve", "--dsn", postgres.dsn()]
        ended = subprocess.run(
            [*command, "--listen", "grpc://127.0.0.1:0", "--http-listen", port],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert ended.returncode == 1
    assert f"cannot listen on http_listen {port}" in ended.stderr
