"""Who may call: tokens, TLS, Unix sockets, and roles that are refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import trustme
from pyarrow import flight

from demo.postgres import EmbeddedPostgres
from tests.helpers.server import ServerProcess

ONE = flight.Ticket(b"select 1 as a")


def bearer(token: bytes) -> flight.FlightCallOptions:
    return flight.FlightCallOptions(headers=[(b"authorization", b"Bearer " + token)])


def test_tokens(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    """Every call needs the token; tickets belong to whoever got them."""
    file = tmp_path / "token"
    file.write_text("right\n")
    with (
        ServerProcess(postgres.dsn(), "--auth-token-file", str(file)) as server,
        flight.connect(server.uri) as client,
    ):
        assert client.do_get(ONE, bearer(b"right")).read_all().num_rows == 1
        for options, text in ((None, "missing"), (bearer(b"wrong"), "wrong"), (bearer(b""), "wrong")):
            for call in (
                lambda o=options: client.do_get(ONE, o),
                lambda o=options: list(client.list_flights(options=o)),
                lambda o=options: list(client.do_action(flight.Action("info", b""), o)),
                lambda o=options: client.get_schema(flight.FlightDescriptor.for_command(b"select 1"), o),
            ):
                # pyarrow's client turns errors of ListFlights into OSError, whatever the server says.
                with pytest.raises((flight.FlightUnauthenticatedError, OSError), match=text) as caught:
                    call()
                assert "Traceback" not in str(caught.value)


def test_tls(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(b"".join(part.bytes() for part in certificate.cert_chain_pems))
    key.write_bytes(certificate.private_key_pem.bytes())
    flags = ("--listen", "grpc+tls://127.0.0.1:0", "--tls-cert", str(chain), "--tls-key", str(key))
    with ServerProcess(postgres.dsn(), *flags) as server:
        assert server.uri.startswith("grpc+tls://")
        with flight.connect(server.uri, tls_root_certs=authority.cert_pem.bytes()) as client:
            assert client.do_get(ONE).read_all().num_rows == 1


def test_unix_socket(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    uri = f"grpc+unix://{tmp_path}/s"
    with ServerProcess(postgres.dsn(unix=True), "--listen", uri) as server, flight.connect(server.uri) as client:
        assert client.do_get(ONE).read_all().num_rows == 1
        facts = json.loads(next(iter(client.do_action(flight.Action("info", b"")))).body.to_pybytes())
        assert facts["postgresql"]["reader"] == "unix"


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--dsn", "{superuser}"], "superuser"),
        (["--dsn", "host=127.0.0.1 port=1"], "cannot be reached"),
        (["--dsn", "no such keyword=1"], "cannot be reached"),
        (["--dsn", "{dsn}", "--listen", "grpc://0.0.0.0:0"], "auth_token"),
        (["--dsn", "{dsn}", "--listen", "grpc://203.0.113.1:1", "--auth-token-file", "/dev/null"], "unencrypted"),
        (["--dsn", "{dsn}", "--decode", "gpu"], "decode=gpu"),
        (["--config", "/no/such/file"], "/no/such/file"),
    ],
)
def test_servers_that_do_not_start(postgres: EmbeddedPostgres, flags: list[str], named: str) -> None:
    """One clear line and status 1, no traceback."""
    known = {"superuser": postgres.dsn(user="postgres"), "dsn": postgres.dsn()}
    command = [sys.executable, "-m", "flight_server", "serve", *(flag.format(**known) for flag in flags)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert named in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_port_that_is_taken(postgres: EmbeddedPostgres, server: ServerProcess) -> None:
    command = [sys.executable, "-m", "flight_server", "serve", "--dsn", postgres.dsn(), "--listen", server.uri]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "cannot listen" in ended.stderr


def test_superuser_by_consent(postgres: EmbeddedPostgres) -> None:
    with ServerProcess(postgres.dsn(user="postgres"), "--allow-superuser") as server:
        with flight.connect(server.uri) as client:
            assert client.do_get(ONE).read_all().num_rows == 1


def test_info_command(postgres: EmbeddedPostgres) -> None:
    command = [sys.executable, "-m", "flight_server", "info", "--json", "--dsn"]
    facts = json.loads(subprocess.run([*command, postgres.dsn()], capture_output=True, check=True).stdout)
    assert facts["postgresql"]["role"] == "pgflight"
    assert facts["postgresql"]["dangers"] == []
    assert facts["versions"]["pyarrow"]
    assert facts["gpu"]["devices"] or "GPU" in facts["gpu"]["problem"]
    assert facts["gpu"]["numba-cuda"] != "missing"
    shown = subprocess.run(
        [*command[:-2], "--dsn", postgres.dsn()], capture_output=True, check=True, text=True
    ).stdout
    assert "numba-cuda" in shown
    away = subprocess.run([*command, "host=127.0.0.1 port=1"], capture_output=True, check=False)
    assert away.returncode == 1
    assert json.loads(away.stdout)["postgresql"]["reachable"] is False


def test_libpq_environment(postgres: EmbeddedPostgres) -> None:
    """Without a DSN, PG* variables decide, as for any libpq program."""
    environment = {
        "PGHOST": "127.0.0.1", "PGPORT": str(postgres.port), "PGUSER": "pgflight", "PGDATABASE": "demo",
    }  # fmt: skip
    with ServerProcess("", environment=environment) as server, flight.connect(server.uri) as client:
        assert client.do_get(ONE).read_all().num_rows == 1
