"""User and password of pgflight's own client: sent to PostgreSQL, and never over a network in the open."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from pyarrow import flight

import pgflight
from tests.helpers.logins import PASSWORDS
from tests.helpers.server import ServerProcess


def test_password(password_server: ServerProcess) -> None:
    with pgflight.connect(password_server.uri, user="bob", password=PASSWORDS["bob"]) as client:
        assert client.query("select current_user::text as u").to_arrow()["u"].to_pylist() == ["bob"]
        assert client.query("select count(*) as n from bob.own", endpoints=2).to_arrow()["n"].to_pylist() == [
            50_000
        ]
    with pgflight.connect(password_server.uri, user="bob", password="wrong") as client:
        with pytest.raises(flight.FlightUnauthenticatedError):
            client.query("select 1")


def test_command_line(password_server: ServerProcess) -> None:
    """The password comes from the environment, where other users of the host do not see it."""
    command = [
        sys.executable,
        "-m",
        "pgflight",
        "query",
        "select current_user::text as u",
        "--uri",
        password_server.uri,
    ]
    for password, status in ((PASSWORDS["alice"], 0), ("wrong", 1)):
        environment = {**os.environ, "PGFLIGHT_PASSWORD": password}
        ended = subprocess.run(
            [*command, "--user", "alice", "--format", "csv"], env=environment, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        assert ended.returncode == status, ended.stderr
        assert ("alice" in ended.stdout) == (status == 0)


@pytest.mark.parametrize("uri", ["grpc://db.example.org:1", "grpc+tcp://192.0.2.1:1", "db.example.org:1"])
def test_no_password_in_the_open(uri: str) -> None:
    with pytest.raises(ValueError, match="unencrypted"):
        pgflight.connect(uri, user="a", password="b")
    pgflight.connect(uri, user="a", password="b", allow_plaintext=True).close()


@pytest.mark.parametrize(
    "uri", ["grpc://localhost:1", "grpc://[::1]:1", "grpc+tls://example.org:1", "grpc+unix:///x"]
)
def test_passwords_that_stay_private(uri: str) -> None:
    pgflight.connect(uri, user="a", password="b").close()


@pytest.mark.parametrize(
    "given", [{"user": "a"}, {"password": "b"}, {"user": "a", "password": "b", "token": "t"},
              {"user": "a:b", "password": "c"}],
)  # fmt: skip
def test_credentials_that_make_no_sense(given: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"token|colon"):
        pgflight.connect("grpc://localhost:1", **given)
