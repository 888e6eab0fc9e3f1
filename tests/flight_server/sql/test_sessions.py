"""Sessions: options that the client keeps, in a cookie or in its bearer token."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from adbc_driver_flightsql import ConnectionOptions, DatabaseOptions, dbapi
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import flight

from flight_server.auth import state
from flight_server.auth.state import SessionState
from flight_sql import sessions
from flight_sql.proto import flight_sql_pb2 as pb
from flight_sql.proto import session_pb2
from kernels.errors import RequestError
from tests.flight_server.sql.rpc import RawClient
from tests.helpers.server import ServerProcess

OPTION = ConnectionOptions.OPTION_SESSION_OPTION_PREFIX.value
ERASE = ConnectionOptions.OPTION_ERASE_SESSION_OPTION_PREFIX.value


class Headers(flight.ClientMiddlewareFactory):
    """Remembers what the server sets."""

    def __init__(self) -> None:
        super().__init__()
        self.received: dict[str, list[str]] = {}

    def start_call(self, info: Any) -> flight.ClientMiddleware:
        remembered = self.received

        class Middleware(flight.ClientMiddleware):
            def received_headers(self, headers: dict[str, list[str]]) -> None:
                remembered.update({name: values for name, values in headers.items() if name != "content-type"})

        return Middleware()


class SessionClient(RawClient):
    """Sees the headers of the replies."""

    def __init__(self, uri: str) -> None:
        self.seen = Headers()
        super().__init__(uri)
        self.flight.close()
        self.flight = flight.connect(uri, middleware=[self.seen])

    def set(self, **options: Any) -> dict[str, int]:
        request = session_pb2.SetSessionOptionsRequest()
        for name, value in options.items():
            if value is None:
                request.session_options[name].SetInParent()
            else:
                request.session_options[name].CopyFrom(sessions.to_message(value))
        [body] = self.act("SetSessionOptions", request)
        errors = session_pb2.SetSessionOptionsResult.FromString(body).errors
        return {name: error.value for name, error in errors.items()}

    def keep_cookie(self) -> None:
        self.headers["cookie"] = self.seen.received["set-cookie"][-1].split(";")[0]

    def keep_token(self) -> None:
        self.headers["authorization"] = self.seen.received["authorization"][-1]


@pytest.fixture
def session(server: ServerProcess) -> Iterator[SessionClient]:
    with SessionClient(server.uri) as client:
        yield client


@pytest.mark.parametrize("kept", ["cookie", "token"])
def test_options_are_kept_by_the_client(session: SessionClient, shop: psycopg.Connection, kept: str) -> None:
    keep = session.keep_cookie if kept == "cookie" else session.keep_token
    assert session.session_options() | {"catalog": "demo", "schema": "public", "profile": "arrow"} == (
        session.session_options()
    )
    assert session.set(schema="scratch", profile="plain", batch_bytes=1 << 16, ordered=True, timeout_s=2.5) == {}
    assert session.session_options()["schema"] == "public", "what the client does not keep is lost"
    keep()
    options = session.session_options()
    assert (options["schema"], options["profile"], options["batch_bytes"]) == ("scratch", "plain", 1 << 16)
    assert (options["ordered"], options["timeout_s"], options["streams"]) == (True, 2.5, 0)
    assert session.query("select code from goods").schema.types == [pa.binary(16)]
    assert session.query("show search_path")["search_path"].to_pylist() == ['"scratch"']
    assert session.set(profile=None, schema=None) == {}
    keep()
    assert session.session_options()["profile"] == "arrow"
    assert session.session_options()["batch_bytes"] == 1 << 16
    with pytest.raises(pa.ArrowKeyError, match="42P01"):
        session.query("select code from goods")


def test_what_cannot_be_set(session: SessionClient) -> None:
    """Each by itself; the others are set."""
    name, value = sessions.Refusal.INVALID_NAME, sessions.Refusal.INVALID_VALUE
    errors = session.set(
        catalog="other", schema="no_such_schema", profile="fancy", speed="warp", numeric="string", streams=-1,
        framing=["copy"], output=True,
    )  # fmt: skip
    assert errors == {
        "catalog": value, "schema": value, "profile": value, "speed": name, "streams": value, "framing": value,
        "output": value,
    }  # fmt: skip
    session.keep_cookie()
    assert session.session_options()["numeric"] == "string"
    assert session.set(catalog="demo") == {}
    assert session.set(schema="a\0b") == {"schema": value}


def test_the_end_of_a_session(session: SessionClient) -> None:
    session.set(profile="plain")
    session.keep_cookie()
    [body] = session.act("CloseSession", session_pb2.CloseSessionRequest())
    assert session_pb2.CloseSessionResult.FromString(body).status == session_pb2.CloseSessionResult.CLOSED
    assert session.seen.received["set-cookie"] == ["pgflight_session=; Max-Age=0"]
    session.keep_token()
    del session.headers["cookie"]
    assert session.session_options()["profile"] == "arrow"


def test_tickets_and_handles_remember_the_schema(session: SessionClient, shop: psycopg.Connection) -> None:
    """Whoever reads them, with or without the session."""
    shop.execute("insert into scratch.a_b values (1), (2)")
    session.set(schema="scratch")
    session.keep_cookie()
    ticket = session.info(pb.CommandStatementQuery(query="select * from a_b")).endpoints[0].ticket.ticket
    handle = session.prepare("select x from a_b where x = $1").prepared_statement_handle
    session.headers.clear()
    assert session.get(ticket)["x"].to_pylist() == [1, 2]
    assert session.run(session.bind(handle, pa.record_batch({"x": [2, 1]})))["x"].to_pylist() == [2, 1]
    assert session.query("show search_path")["search_path"].to_pylist() == ['"$user", public']


def test_parallel_reads_in_a_schema(session: SessionClient, shop: psycopg.Connection) -> None:
    """All sessions of a read look names up alike, those of other endpoints too."""
    shop.execute("create table scratch.wide as select g, repeat('x', 200) as t from generate_series(1, 20000) g")
    session.set(schema="scratch", endpoints=2, streams=2)
    session.keep_cookie()
    info = session.info(pb.CommandStatementQuery(query="select g from wide"))
    assert len(info.endpoints) == 2
    session.headers.clear()
    found = [
        value for endpoint in info.endpoints for value in session.get(endpoint.ticket.ticket)["g"].to_pylist()
    ]
    assert sorted(found) == list(range(1, 20_001))
    session.act("CancelFlightInfo", b"\x0a" + _varint(len(info.serialize())) + info.serialize())


def _varint(number: int) -> bytes:
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def test_headers_win_over_the_session(session: SessionClient) -> None:
    session.set(profile="plain")
    session.keep_cookie()
    session.headers["x-pgflight-profile"] = "arrow"
    assert session.query("select gen_random_uuid() as u").schema.types == [pa.uuid()]


@pytest.mark.parametrize(
    "cookie",
    ["pgflight_session=!", "pgflight_session=e30x", "pgflight_session=W10", "pgflight_session=" + "A" * 3000],
)
def test_broken_cookies(session: SessionClient, cookie: str) -> None:
    session.headers["cookie"] = cookie
    with pytest.raises(pa.ArrowInvalid, match="session's"):
        session.query("select 1")


def test_other_cookies_do_not_matter(session: SessionClient) -> None:
    others = 'arrow_flight_session_id=abc; x="y; z"; bad cookie=1; =; pgflight_session_=2'
    session.headers["cookie"] = others
    assert session.session_options()["profile"] == "arrow"
    name, _, value = SessionState(options={"profile": "plain"}).to_cookie().partition("=")
    session.headers["cookie"] = f'{others}; {name}="{value}"'
    assert session.session_options()["profile"] == "plain"


@pytest.mark.parametrize("cookies", ["true", "false"])
def test_drivers_keep_options(server: ServerProcess, shop: psycopg.Connection, cookies: str) -> None:
    """ADBC's driver, by cookies and, where they are off, by the bearer token it is given."""
    arguments = {DatabaseOptions.WITH_COOKIE_MIDDLEWARE.value: cookies}
    with dbapi.connect(server.uri, db_kwargs=arguments, autocommit=True) as connection:
        assert (connection.adbc_current_catalog, connection.adbc_current_db_schema) == ("demo", "public")
        connection.adbc_current_db_schema = "scratch"
        connection.adbc_current_catalog = "demo"
        assert connection.adbc_current_db_schema == "scratch"
        connection.adbc_connection.set_options(**{f"{OPTION}profile": "plain"})
        with connection.cursor() as cursor:
            cursor.execute("select code from goods")
            assert cursor.fetch_arrow_table().schema.types == [pa.binary(16)]
            connection.adbc_connection.set_options(**{f"{ERASE}profile": ""})
            cursor.execute("select code from goods ")
            assert cursor.fetch_arrow_table().schema.types == [pa.uuid()]
        for name, value in (("profile", "fancy"), ("speed", "1")):
            with pytest.raises(dbapi.ProgrammingError, match="invalid"):
                connection.adbc_connection.set_options(**{f"{OPTION}{name}": value})
        with pytest.raises(dbapi.ProgrammingError, match="invalid value"):
            connection.adbc_current_catalog = "other"


def test_states_are_small() -> None:
    small = SessionState("s" * 63, {"profile": "plain"})
    [cookie] = small.to_cookie().split(";")
    assert state.from_headers({"Cookie": [cookie.encode()]}) == small
    with pytest.raises(RequestError, match="bytes"):
        SessionState("s" * 4000).to_cookie()


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.text() | st.integers(), st.lists, max_leaves=3)))
def test_any_state_is_read_or_refused(said: dict[str, Any]) -> None:
    try:
        read = state.from_json(said)
    except RequestError:
        return
    assert state.from_json(read.to_json()) == read
