"""Real Flight servers in processes of their own, clients of them, and the command line."""

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyarrow import flight

import pgflight

SERVER = Path(__file__).with_name("serve_tables.py")
DEADLINE_S = 20


@dataclass(frozen=True)
class TestServer:
    __test__ = False
    uri: str

    def counts(self):
        with flight.connect(self.uri) as client:
            return json.loads(next(client.do_action("counts")).body.to_pybytes())

    def put(self, name, table):
        """Have the server offer `table`."""
        with flight.connect(self.uri) as client:
            writer, _ = client.do_put(flight.FlightDescriptor.for_path(name), table.schema)
            with writer:
                writer.write_table(table)

    def wait_idle(self):
        """Wait until every stream has ended; return the counts."""
        return until(self.counts, lambda seen: seen["started"] == seen["finished"] + seen["broken_off"])


def until(read, good):
    deadline = time.monotonic() + DEADLINE_S
    while not good(seen := read()):
        assert time.monotonic() < deadline, f"still {seen} after {DEADLINE_S} s"
        time.sleep(0.02)
    return seen


@contextmanager
def running(*arguments, scheme="grpc"):
    command = [sys.executable, str(SERVER), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            port = process.stdout.readline().strip()
            assert port, "the server did not start"
            yield TestServer(f"{scheme}://127.0.0.1:{port}")
        finally:
            process.kill()


@pytest.fixture(scope="session")
def start_server():
    return running


@pytest.fixture(scope="session")
def server():
    with running() as started:
        yield started


@pytest.fixture(scope="session")
def other_server():
    with running() as started:
        yield started


@pytest.fixture
def client(server):
    with pgflight.connect(server.uri) as connected:
        yield connected


@pytest.fixture
def wait_until():
    return until


@pytest.fixture
def cli_environment(server):
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PGFLIGHT_")}
    return {**inherited, "PGFLIGHT_URI": server.uri, "COLUMNS": "100", "PYTHONWARNINGS": "error"}


@pytest.fixture
def cli(cli_environment):
    """Run the command line to its end, with pipes for stdout and stderr."""

    def run(*arguments, check=0, **options):
        command = [sys.executable, "-m", "pgflight", *arguments]
        done = subprocess.run(
            command, env=cli_environment, capture_output=True, text=True, timeout=60, check=False, **options
        )
        assert done.returncode == check, done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run
