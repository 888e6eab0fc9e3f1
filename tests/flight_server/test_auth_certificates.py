"""Client certificates: without one nobody connects, with one the first name in it is who calls."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID
from pyarrow import flight

from demo.postgres import EmbeddedPostgres
from flight_server.config import load
from kernels.errors import ConfigError
from tests.helpers.logins import PASSWORDS, basic
from tests.helpers.server import ServerProcess

WHO = flight.Ticket(b"select current_user::text as who")
AUTHORITY, STRANGER = trustme.CA(), trustme.CA()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("certificates")
    server = AUTHORITY.issue_cert("localhost", "127.0.0.1")
    users = '"alice@example.org" = "alice"\n"bob.example.org" = "bob"\n'
    passwords = "".join(
        f"*:*:*:{name}:{PASSWORDS[name].replace(':', chr(92) + ':')}\n" for name in ("alice", "bob")
    )
    contents = {
        "chain": b"".join(part.bytes() for part in server.cert_chain_pems),
        "key": server.private_key_pem.bytes(),
        "authority": AUTHORITY.cert_pem.bytes(),
        "users": users.encode(),
        "pgpass": passwords.encode(),
        "token": b"the token of everybody",
    }
    for name, content in contents.items():
        (directory / name).write_bytes(content)
        (directory / name).chmod(0o600)
    return {name: directory / name for name in contents}


def flags(files: dict[str, Path], *more: str) -> list[str]:
    return [
        "--listen", "grpc+tls://127.0.0.1:0", "--tls-cert", str(files["chain"]), "--tls-key", str(files["key"]),
        "--tls-client-ca", str(files["authority"]), *more,
    ]  # fmt: skip


def connect(server: ServerProcess, certificate: trustme.LeafCert | None) -> flight.FlightClient:
    mine = {}
    if certificate is not None:
        mine = {
            "cert_chain": certificate.cert_chain_pems[0].bytes(),
            "private_key": certificate.private_key_pem.bytes(),
        }
    return flight.connect(server.uri, tls_root_certs=AUTHORITY.cert_pem.bytes(), **mine)


@pytest.fixture(scope="module")
def server(people: EmbeddedPostgres, files: dict[str, Path]) -> Iterator[ServerProcess]:
    more = ("--login", "certificate", "--login-map", str(files["users"]))
    environment = {"PGPASSFILE": str(files["pgpass"])}
    with ServerProcess(people.dsn(), *flags(files, *more), environment=environment) as process:
        yield process


@pytest.mark.parametrize(("names", "role"), [(["alice@example.org"], "alice"), (["bob.example.org"], "bob")])
def test_names_are_logins(server: ServerProcess, names: list[str], role: str) -> None:
    with connect(server, AUTHORITY.issue_cert(*names)) as client:
        assert client.do_get(WHO).read_all()["who"].to_pylist() == [role]
        assert client.get_flight_info(flight.FlightDescriptor.for_command(WHO.ticket)).endpoints


def test_common_names_count_where_there_is_no_other(server: ServerProcess) -> None:
    """Whoever has an alternative name is called by that alone."""
    both = AUTHORITY.issue_cert("bob.example.org", common_name="alice@example.org")
    with connect(server, both) as client:
        assert client.do_get(WHO).read_all()["who"].to_pylist() == ["bob"]
    chain, key = _named("alice@example.org")
    with flight.connect(
        server.uri, tls_root_certs=AUTHORITY.cert_pem.bytes(), cert_chain=chain, private_key=key
    ) as client:
        assert client.do_get(WHO).read_all()["who"].to_pylist() == ["alice"]


def _named(name: str) -> tuple[bytes, bytes]:
    """Sign a certificate that has nothing but a common name; trustme makes none."""
    key = ec.generate_private_key(ec.SECP256R1())
    authority = x509.load_pem_x509_certificate(AUTHORITY.cert_pem.bytes())
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .sign(load_pem_private_key(AUTHORITY.private_key_pem.bytes(), None), hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM), private


def test_a_name_without_a_login(server: ServerProcess) -> None:
    with connect(server, AUTHORITY.issue_cert("eve@example.org")) as client:
        with pytest.raises(flight.FlightUnauthorizedError, match="login_map"):
            client.do_get(WHO)


@pytest.mark.parametrize("certificate", [None, STRANGER.issue_cert("alice@example.org")], ids=["none", "foreign"])
def test_without_a_certificate_of_ours(server: ServerProcess, certificate: trustme.LeafCert | None) -> None:
    with connect(server, certificate) as client, pytest.raises((flight.FlightUnavailableError, pa.ArrowException)):
        client.do_get(WHO, flight.FlightCallOptions(timeout=10))


def test_headers_change_nobody(server: ServerProcess) -> None:
    for header in ("Bearer x", basic("alice", PASSWORDS["alice"])):
        options = flight.FlightCallOptions(headers=[(b"authorization", header.encode())])
        with connect(server, AUTHORITY.issue_cert("bob.example.org")) as client:
            assert client.do_get(WHO, options).read_all()["who"].to_pylist() == ["bob"]
        with connect(server, AUTHORITY.issue_cert("eve@example.org")) as client:
            with pytest.raises(flight.FlightUnauthorizedError):
                client.do_get(WHO, options)


def test_tickets_of_another(server: ServerProcess) -> None:
    with connect(server, AUTHORITY.issue_cert("alice@example.org")) as alice:
        ticket = alice.get_flight_info(flight.FlightDescriptor.for_command(WHO.ticket)).endpoints[0].ticket
    with connect(server, AUTHORITY.issue_cert("bob.example.org")) as bob:
        with pytest.raises(flight.FlightUnauthorizedError, match="somebody else"):
            bob.do_get(ticket)


def test_a_certificate_and_a_token(people: EmbeddedPostgres, files: dict[str, Path]) -> None:
    """With another login both are asked for."""
    with ServerProcess(people.dsn(), *flags(files, "--auth-token-file", str(files["token"]))) as server:
        options = flight.FlightCallOptions(
            headers=[(b"authorization", b"Bearer the token of everybody")], timeout=10
        )
        with connect(server, AUTHORITY.issue_cert("eve@example.org")) as client:
            assert client.do_get(WHO, options).read_all()["who"].to_pylist() == ["pgflight"]
            with pytest.raises(flight.FlightUnauthenticatedError, match="missing"):
                client.do_get(WHO)
        with connect(server, None) as client, pytest.raises((flight.FlightUnavailableError, pa.ArrowException)):
            client.do_get(WHO, options)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"login": "certificate"}, "tls_client_ca"),
        ({"login": "certificate", "tls": True}, "login_map"),
        ({"tls_client_ca": "authority"}, "TLS"),
        ({"login": "oidc", "login_map": "users"}, "oidc_jwks"),
        ({"login": "oidc", "login_map": "users", "oidc_jwks": "x", "oidc_issuer": "x", "oidc_audience": "x",
          "oidc_algorithms": "HS256,none"}, "HS256, none"),
        ({"login": "postgres", "auth_token": "x"}, "auth_token"),
        ({"login": "postgres", "listen": "grpc://0.0.0.0:0"}, "unencrypted"),
        ({"login": "postgres", "login_map": "users"}, "login_map"),
        ({"auth_token": "x", "auth_tokens_file": "users"}, "auth_tokens_file"),
        ({"login": "nobody"}, "login"),
    ],
)  # fmt: skip
def test_unsafe_settings(given: dict[str, Any], named: str) -> None:
    """Each error names the setting."""
    tls = {"listen": "grpc+tls://127.0.0.1:0", "tls_cert": "chain", "tls_key": "key", "tls_client_ca": "authority"}
    settings = {
        **(tls if given.get("tls") else {}),
        **{name: value for name, value in given.items() if name != "tls"},
    }
    with pytest.raises(ConfigError, match=named):
        load(**settings)


def test_an_authority_that_is_none(people: EmbeddedPostgres, files: dict[str, Path]) -> None:
    """One line that names the setting, status 1, no traceback."""
    files = {**files, "authority": files["token"]}
    more = flags(files, "--auth-token-file", str(files["token"]))
    command = [sys.executable, "-m", "flight_server", "serve", "--dsn", people.dsn(), *more]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "tls_client_ca" in ended.stderr
    assert "Traceback" not in ended.stderr
