"""Tokens of an identity provider: whose keys, for whom, for how long, and under which PostgreSQL login."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pyarrow import flight

from demo.postgres import EmbeddedPostgres
from flight_server.auth import jwks
from flight_server.auth.jwks import KeySet
from flight_server.auth.login import Logins
from flight_server.auth.mapping import LoginMap
from flight_server.auth.oidc import Oidc, Trust
from flight_server.auth.state import SessionState
from kernels.errors import ConfigError, ForbiddenError, UnauthenticatedError
from tests.flight_server.sql.rpc import RawClient
from tests.helpers.logins import PASSWORDS, basic
from tests.helpers.server import ServerProcess

ISSUER, AUDIENCE = "https://id.example.org", "pgflight"
RSA, OTHER_RSA = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
EC = ec.generate_private_key(ec.SECP256R1())
SECRET = "a shared secret that is long enough for HS256"
LIFETIME_S = 86_400.0
"""Some tokens are made when tests are collected, which may be long before their test runs."""


def public(key: Any, key_id: str) -> dict[str, Any]:
    algorithm = jwt.algorithms.ECAlgorithm if key is EC else jwt.algorithms.RSAAlgorithm
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": key_id, "use": "sig"}


def key_set(*keys: dict[str, Any]) -> str:
    return json.dumps({"keys": list(keys)})


def token(key: Any = RSA, key_id: str | None = "one", algorithm: str = "RS256", **claims: Any) -> str:
    said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice@example.org", "exp": time.time() + LIFETIME_S, **claims}
    headers = {} if key_id is None else {"kid": key_id}
    return jwt.encode({name: value for name, value in said.items() if value is not None}, key, algorithm, headers)


def unsigned() -> str:
    said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice@example.org", "exp": time.time() + LIFETIME_S}
    return jwt.encode(said, None, "none", {"kid": "one"})


def signed_with_the_public_key() -> str:
    """The classic: HS256 with the bytes of the RSA key as the secret (PyJWT itself refuses to make one)."""
    pem = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def part(value: bytes) -> bytes:
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice@example.org", "exp": time.time() + LIFETIME_S}
    text = part(json.dumps({"alg": "HS256", "kid": "one"}).encode()) + b"." + part(json.dumps(said).encode())
    return (text + b"." + part(hmac.new(pem, text, hashlib.sha256).digest())).decode()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    file = tmp_path / "jwks.json"
    shared = {"kty": "oct", "k": "c2VjcmV0", "kid": "shared", "alg": "HS256"}
    file.write_text(key_set(public(RSA, "one"), public(EC, "two"), shared))
    return file


@pytest.fixture
def oidc(keys: Path) -> Oidc:
    users = LoginMap({"alice@example.org": "alice", "bob": "="})
    return Oidc(KeySet(str(keys), pause_s=0.0), Trust(ISSUER, AUDIENCE), users, b"key")


def test_tokens_that_are_believed(oidc: Oidc) -> None:
    for good in (token(), token(EC, "two", "ES256"), token(aud=["other", AUDIENCE])):
        found = oidc.by_bearer(good)
        assert found is not None
        assert found.identity == "oidc:alice@example.org"
        assert found.expires_at < time.time() + LIFETIME_S + 100
        assert oidc.by_password("anybody", good) == found


@pytest.mark.parametrize(
    "bad",
    [
        "", "x", "a.b.c", "é" * 9, token(OTHER_RSA), token(key_id="three"), token(key_id=None), token(iss="https://evil"),
        token(aud="other"), token(aud=None), token(iss=None), token(exp=None), token(sub=None), token(sub=""),
        token(sub="a\0b"), token(sub="x" * 300), token(algorithm="RS384"), token(algorithm="PS256"),
        token(SECRET, "shared", "HS256"), unsigned(), signed_with_the_public_key(), token(EC, "one", "ES256"),
        token(nbf=time.time() + LIFETIME_S / 2), token()[:-8] + "AAAAAAAA", token(exp="never"),
    ],
)  # fmt: skip
def test_tokens_that_are_not(oidc: Oidc, bad: str) -> None:
    assert oidc.by_bearer(bad) is None


def test_tokens_end(oidc: Oidc) -> None:
    """And with them the login tokens that were given for them, whatever those would last by themselves."""
    with pytest.raises(UnauthenticatedError, match="expired"):
        oidc.by_bearer(token(exp=time.time() - 60))
    logins = Logins(oidc)
    login = logins.check({"authorization": [f"Bearer {token(exp=time.time() + 2)}"]})
    assert login.expires_at < time.time() + 20
    bearer = logins.bearer(login.identity, SessionState("s"), login.expires_at)
    again = logins.check({"authorization": [bearer]})
    assert (again.identity, again.session.schema, again.answer) == (login.identity, "s", False)
    with pytest.raises(UnauthenticatedError, match="too old"):
        logins.check({"authorization": [logins.bearer(login.identity, SessionState(), time.time() - 2)]})
    with pytest.raises(UnauthenticatedError, match="expired"):
        logins.check({"authorization": [logins.bearer(login.identity, SessionState())]})


def test_names_without_a_login(oidc: Oidc) -> None:
    assert "user=alice" in oidc.conninfo("oidc:alice@example.org", "host=h user=server password=x sslcert=y")
    for part in ("server", "password", "sslcert"):
        assert part not in oidc.conninfo("oidc:bob", "host=h user=server password=x sslcert=y")
    with pytest.raises(ForbiddenError, match="login_map"):
        oidc.conninfo("oidc:eve", "host=h")


def test_the_map_of_logins(tmp_path: Path) -> None:
    file = tmp_path / "logins.toml"
    file.write_text('"ann" = "="\n"*" = "guest"\n')
    users = LoginMap.load(file)
    assert [users.login(name).user for name in ("ann", "anybody", "*")] == ["ann", "guest", "guest"]
    with pytest.raises(ForbiddenError):
        users.login("")
    for text in ("", "ann = 1", 'ann = ""', "[ann]", "no toml"):
        file.write_text(text)
        with pytest.raises(ConfigError, match=r"logins\.toml"):
            LoginMap.load(file)
    with pytest.raises(ConfigError, match="cannot read"):
        LoginMap.load(tmp_path / "none")


def test_keys_rotate(keys: Path) -> None:
    found = KeySet(str(keys), pause_s=0.0)
    assert found.find("new") is None
    keys.write_text(key_set(public(OTHER_RSA, "new")))
    assert found.find("new") is not None
    assert found.find("one") is None
    keys.write_text("damaged")
    assert found.find("newer") is None
    assert found.find("new") is not None


def test_keys_are_asked_for_seldom_and_forgotten_in_time(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr("flight_server.auth.jwks.time.monotonic", lambda: now)
    found = KeySet(str(keys))
    keys.write_text(key_set(public(RSA, "one"), public(OTHER_RSA, "new")))
    assert found.find("new") is None  # it was read just now
    now += jwks.PAUSE_S
    assert found.find("new") is not None
    keys.unlink()
    now += 1.5 * jwks.LIFETIME_S
    assert found.find("new") is not None
    now += jwks.LIFETIME_S
    assert found.find("new") is None


@pytest.mark.parametrize("text", ["", "[]", '{"keys": []}', '{"keys": [{"kty": "oct", "k": "x"}]}', '{"keys": 1}'])
def test_key_sets_that_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match="oidc_jwks"):
        KeySet(str(file))
    with pytest.raises(ConfigError, match="https"):
        KeySet("http://example.org/jwks")


@pytest.fixture
def provider(keys: Path) -> Iterator[str]:
    """Serves the keys over HTTP, as a provider does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(keys.read_bytes())

        def log_message(self, *_args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/jwks"
        server.shutdown()
        thread.join()


def test_from_provider_to_postgresql(people: EmbeddedPostgres, provider: str, tmp_path: Path) -> None:
    users, passfile = tmp_path / "logins.toml", tmp_path / "pgpass"
    users.write_text('"alice@example.org" = "alice"\n"boss" = "mallory"\n')
    passfile.write_text(
        "".join(f"*:*:*:{user}:{PASSWORDS[user].replace(':', chr(92) + ':')}\n" for user in ("alice", "mallory"))
    )
    passfile.chmod(0o600)
    flags = (
        "--login", "oidc", "--oidc-jwks", provider, "--oidc-issuer", ISSUER, "--oidc-audience", AUDIENCE,
        "--login-map", str(users),
    )  # fmt: skip
    with ServerProcess(people.dsn(), *flags, environment={"PGPASSFILE": str(passfile)}) as server:
        for header in (f"Bearer {token()}", basic("any", token())):
            with RawClient(server.uri, {"authorization": header}) as client:
                assert client.query("select current_user::text as u")["u"].to_pylist() == ["alice"]
        with flight.connect(server.uri) as client:
            _, value = client.authenticate_basic_token(b"", token().encode())
        with RawClient(server.uri, {"authorization": value.decode()}) as client:
            assert client.query("select current_user::text as u")["u"].to_pylist() == ["alice"]
        for subject, text in (("eve", "login_map"), ("boss", "superuser")):
            with RawClient(server.uri, {"authorization": f"Bearer {token(sub=subject)}"}) as client:
                with pytest.raises(flight.FlightUnauthorizedError, match=text):
                    client.query("select 1 as a")
