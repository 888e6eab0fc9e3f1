"""Logging in: passwords and tokens, by handshake and by header, and what they are answered with."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import trustme
from adbc_driver_flightsql import DatabaseOptions, dbapi
from adbc_driver_manager import DatabaseOptions as CommonOptions
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import flight

from demo.postgres import EmbeddedPostgres
from flight_server.auth import login
from flight_server.auth.caller import CallerFactory
from flight_server.auth.login import Login, Logins
from flight_server.auth.state import SessionState
from flight_server.auth.tokens import Everybody, OneToken
from kernels.errors import UnauthenticatedError
from tests.flight_server.sql.rpc import RawClient
from tests.helpers.server import ServerProcess

TOKEN = "s3cret: with a colon"


def basic(password: str, user: str = "anybody") -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture(scope="module")
def guarded(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    file = tmp_path_factory.mktemp("token") / "token"
    file.write_text(TOKEN)
    with ServerProcess(postgres.dsn(), "--auth-token-file", str(file)) as server:
        yield server


@pytest.mark.parametrize(
    "header", [f"Bearer {TOKEN}", f"bearer  {TOKEN}", basic(TOKEN), basic(TOKEN, ""), basic(TOKEN).rstrip("=")]
)
def test_headers_that_are_let_in(guarded: ServerProcess, header: str) -> None:
    with RawClient(guarded.uri, {"authorization": header}) as client:
        assert client.query("select 1 as a").num_rows == 1


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (None, "missing"), ("", "wrong"), (basic("wrong"), "wrong"), ("Bearer wrong", "wrong"), ("Bearer ", "wrong"),
        ("Basic ???", "wrong"), ("Basic " + base64.b64encode(b"no colon").decode(), "wrong"), (TOKEN, "wrong"),
        (f"Digest {TOKEN}", "wrong"), ("Bearer pgl1.x.y", "wrong"), ("Bearer pgl1.", "wrong"),
        ("Basic " + base64.b64encode(b"\xff\xfe:\xff").decode(), "wrong"),
    ],
)  # fmt: skip
def test_headers_that_are_not(guarded: ServerProcess, header: str | None, text: str) -> None:
    headers = {} if header is None else {"authorization": header}
    with RawClient(guarded.uri, headers) as client:
        with pytest.raises(flight.FlightUnauthenticatedError, match=text) as caught:
            client.query("select 1 as a")
        assert "Traceback" not in str(caught.value)
        with pytest.raises(flight.FlightUnauthenticatedError, match=text):
            client.act("CloseSession", b"")


def test_handshake_of_arrow(guarded: ServerProcess) -> None:
    """The answer is a token of its own; the server's is not given out."""
    with flight.connect(guarded.uri) as client:
        name, value = client.authenticate_basic_token("anybody", TOKEN)
        assert name == b"authorization"
        assert value.startswith(b"Bearer pgl1.")
        assert TOKEN.encode() not in value
        with RawClient(guarded.uri, {"authorization": value.decode()}) as raw:
            assert raw.query("select 1 as a").num_rows == 1
        with pytest.raises(flight.FlightUnauthenticatedError, match="wrong"):
            client.authenticate_basic_token("anybody", "wrong")


def test_handshake_of_drivers(guarded: ServerProcess, database: psycopg.Connection) -> None:
    def connect(**arguments: str) -> dbapi.Connection:
        return dbapi.connect(guarded.uri, db_kwargs=arguments, autocommit=True)

    user, password = CommonOptions.USERNAME.value, CommonOptions.PASSWORD.value
    header = DatabaseOptions.AUTHORIZATION_HEADER.value
    for arguments in ({user: "me", password: TOKEN}, {header: f"Bearer {TOKEN}"}, {header: basic(TOKEN)}):
        with connect(**arguments) as connection:
            connection.adbc_current_db_schema = "scratch"
            assert connection.adbc_current_db_schema == "scratch"
            with connection.cursor() as cursor:
                cursor.execute("select 1 as a")
                assert cursor.fetchone() == (1,)
    for arguments in ({user: "me", password: "wrong"}, {header: "Bearer wrong"}, {}):
        with pytest.raises(dbapi.ProgrammingError, match="UNAUTHENTICATED"):
            with connect(**arguments) as connection, connection.cursor() as cursor:
                cursor.execute("select 1")


def test_drivers_over_tls(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    chain, key, token = tmp_path / "chain.pem", tmp_path / "key.pem", tmp_path / "token"
    chain.write_bytes(b"".join(part.bytes() for part in certificate.cert_chain_pems))
    key.write_bytes(certificate.private_key_pem.bytes())
    token.write_text(TOKEN)
    flags = ("--listen", "grpc+tls://127.0.0.1:0", "--tls-cert", str(chain), "--tls-key", str(key))
    with ServerProcess(postgres.dsn(), *flags, "--auth-token-file", str(token)) as server:
        arguments = {
            DatabaseOptions.TLS_ROOT_CERTS.value: authority.cert_pem.bytes().decode(),
            CommonOptions.USERNAME.value: "me",
            CommonOptions.PASSWORD.value: TOKEN,
        }
        with dbapi.connect(server.uri, db_kwargs=arguments, autocommit=True) as connection:
            with connection.cursor() as cursor:
                cursor.execute("select $1::int4 as a", (1,))
                assert cursor.fetchone() == (1,)


def test_credentials_where_none_are_asked_for(server: ServerProcess) -> None:
    """Clients that insist on a handshake get one; nobody is turned away for what they bring along."""
    arguments = {CommonOptions.USERNAME.value: "me", CommonOptions.PASSWORD.value: "anything"}
    with dbapi.connect(server.uri, db_kwargs=arguments, autocommit=True) as connection:
        with connection.cursor() as cursor:
            cursor.execute("select 1 as a")
            assert cursor.fetchone() == (1,)
    for header in ("Bearer whatever", basic("x"), "Bearer pgl1.x.y", "Bearer pgl1." + "A" * 3000):
        with RawClient(server.uri, {"authorization": header}) as client:
            assert client.query("select 1 as a").num_rows == 1


def headers(value: str) -> login.Headers:
    return {"authorization": [value]}


def test_tokens_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """After half their time a fresh one is due; after all of it they are of no use."""
    now = 1_000_000.0
    monkeypatch.setattr("flight_server.auth.login.time.time", lambda: now)
    logins = Logins(OneToken(TOKEN))
    chosen = SessionState("s", {"profile": "plain"})
    bearer = logins.bearer("token", chosen)
    assert logins.check(headers(bearer)) == Login("token", chosen, answer=False)
    now += 0.6 * login.LIFETIME_S
    assert logins.check(headers(bearer)).answer
    now += 0.6 * login.LIFETIME_S
    with pytest.raises(UnauthenticatedError, match="too old"):
        logins.check(headers(bearer))
    both = {"authorization": [bearer, f"Bearer {TOKEN}"]}
    assert logins.check(both).identity == "token"


def test_old_tokens_are_answered_with_fresh_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """With any reply, once; a handshake always is."""
    now = 1_000_000.0
    monkeypatch.setattr("flight_server.auth.login.time.time", lambda: now)
    factory = CallerFactory(OneToken(TOKEN), threading.Event())
    call = flight.CallInfo(method=flight.FlightMethod.DO_GET)
    bearer = factory.logins.bearer("token", SessionState("s"))
    assert factory.start_call(call, headers(bearer)).sending_headers() == {}
    now += 0.6 * login.LIFETIME_S
    caller = factory.start_call(call, headers(bearer))
    fresh = caller.sending_headers()["authorization"]
    assert caller.sending_headers() == {}
    now += 0.6 * login.LIFETIME_S
    assert factory.logins.check(headers(fresh)).session == SessionState("s")
    handshake = flight.CallInfo(method=flight.FlightMethod.HANDSHAKE)
    assert "authorization" in factory.start_call(handshake, headers(basic(TOKEN))).sending_headers()


def test_tokens_end_with_the_servers(server: ServerProcess) -> None:
    """A new token of the server's, and all that was issued under the old one is void; replicas share it."""
    bearer = Logins(OneToken("old")).bearer("token", SessionState())
    assert Logins(OneToken("old")).check(headers(bearer)).identity == "token"
    with pytest.raises(UnauthenticatedError, match="wrong"):
        Logins(OneToken("new")).check(headers(bearer))


def test_nobody_gives_himself_an_identity() -> None:
    """Where no token is asked for, anybody could sign one: it carries options, not an identity."""
    everybody = Logins(Everybody())
    forged = everybody.bearer("token", SessionState("s"))
    assert everybody.check(headers(forged)) == Login("anonymous", SessionState("s"))
    body = base64.urlsafe_b64encode(json.dumps({"i": "token", "e": "x", "s": 1}).encode()).decode()
    odd = f"Bearer pgl1.{body}.{login._sign(Everybody().key(''), body)}"
    assert everybody.check(headers(odd)) == Login("anonymous", SessionState())


def test_cookies_win_over_tokens() -> None:
    logins = Logins(OneToken(TOKEN))
    given_headers = {
        "authorization": [logins.bearer("token", SessionState("old"))],
        "cookie": [SessionState("new").to_cookie()],
    }
    assert logins.check(given_headers).session.schema == "new"


@given(st.text(), st.sampled_from(["", "Bearer ", "Basic ", "Bearer pgl1."]))
def test_any_header_is_refused(text: str, scheme: str) -> None:
    with pytest.raises(UnauthenticatedError, match=r"wrong|too old"):
        Logins(OneToken("a token that hypothesis will not guess")).check(headers(scheme + text))
