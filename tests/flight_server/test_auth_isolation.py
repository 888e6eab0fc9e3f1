"""What belongs to one identity is of no use to another: pools, tickets, leases, statements, spool, caches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa
import pytest
from google.protobuf.wrappers_pb2 import BytesValue
from pyarrow import flight

from demo.postgres import EmbeddedPostgres
from flight_server import actions
from flight_server.auth.postgres import ATTEMPTS_AT_ONCE
from flight_sql import pack
from flight_sql.envelope import unpack
from flight_sql.proto import flight_sql_pb2 as pb
from tests.flight_server.sql.rpc import RawClient
from tests.helpers.logins import PASSWORDS, basic, connections
from tests.helpers.server import ServerProcess
from tests.helpers.waiting import eventually

TOKENS = {"ann": "the token of ann 0123", "ben": "the token of ben 0123"}
REFUSED = (flight.FlightUnauthorizedError, pa.ArrowKeyError, pa.ArrowInvalid)


@pytest.fixture(scope="module", params=["passwords", "tokens"])
def pair(
    request: pytest.FixtureRequest, people: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RawClient, RawClient]]:
    """Two identities of a server: two roles of PostgreSQL, or two that share the server's own."""
    directory = tmp_path_factory.mktemp("pair")
    flags = ["--spool-dir", str(directory / "spool"), "--identity-connections", "6", "--allow-writes"]
    if request.param == "passwords":
        flags += ["--login", "postgres"]
        headers = [basic(name, PASSWORDS[name]) for name in ("alice", "bob")]
        with people.connect(user="postgres") as connection:
            connection.execute("grant usage on schema alice to bob; grant select on alice.own to bob")
    else:
        file = directory / "tokens.toml"
        file.write_text("".join(f'[{name}]\ntoken = "{token}"\n' for name, token in TOKENS.items()))
        flags += ["--auth-tokens-file", str(file)]
        headers = [f"Bearer {token}" for token in TOKENS.values()]
        with people.connect(user="postgres") as connection:
            connection.execute("grant usage on schema alice to pgflight; grant select on alice.own to pgflight")
    with ServerProcess(people.dsn(), *flags) as server:
        first, second = ({"authorization": header} for header in headers)
        with RawClient(server.uri, first) as one, RawClient(server.uri, second) as two:
            yield one, two
    with people.connect(user="postgres") as connection:
        connection.execute("revoke all on schema alice from bob, pgflight")


def info(client: RawClient, command: dict[str, object]) -> flight.FlightInfo:
    return client.flight.get_flight_info(
        flight.FlightDescriptor.for_command(json.dumps(command).encode()), client.options
    )


def act(client: RawClient, name: str, body: bytes = b"") -> object:
    return json.loads(client.act(name, body)[0])


def test_tickets(pair: tuple[RawClient, RawClient]) -> None:
    one, two = pair
    ticket = info(one, {"sql": "select 1 as a"}).endpoints[0].ticket.ticket
    assert one.get(ticket).num_rows == 1
    with pytest.raises(flight.FlightUnauthorizedError, match="somebody else"):
        two.get(ticket)
    statement = one.info(pb.CommandStatementQuery(query="select 1 as a")).endpoints[0].ticket.ticket
    with pytest.raises(flight.FlightUnauthorizedError, match="somebody else"):
        two.get(statement)


def test_snapshots(pair: tuple[RawClient, RawClient]) -> None:
    """Nobody reads under another's snapshot, renews it or ends it; and it is held by the owner's connection."""
    one, two = pair
    planned = info(one, {"table": "alice.own", "options": {"endpoints": 2}})
    assert len(planned.endpoints) == 2
    message = _bytes_value(planned.serialize())
    with pytest.raises(flight.FlightUnauthorizedError, match="somebody else"):
        two.get(planned.endpoints[0].ticket.ticket)
    with pytest.raises(flight.FlightUnauthorizedError, match="somebody else"):
        two.act(actions.CANCEL, message)
    with pytest.raises(flight.FlightUnauthorizedError, match="somebody else"):
        two.act(actions.RENEW, _bytes_value(planned.endpoints[0].serialize()))
    assert sum(one.get(endpoint.ticket.ticket).num_rows for endpoint in planned.endpoints) == 50_000
    assert one.act(actions.CANCEL, message) == [actions.cancel_result(actions.CANCELLED)]


def test_prepared_statements_and_parameters(pair: tuple[RawClient, RawClient]) -> None:
    one, two = pair
    handle = one.prepare("select $1::int8 as a, $2::text as b").prepared_statement_handle
    small = pa.record_batch({"a": [1], "b": ["x"]})
    large = pa.record_batch({"a": list(range(4)), "b": ["y" * 40_000] * 4})
    for rows in (small, large):
        bound = one.bind(handle, rows)
        assert one.run(bound).num_rows == rows.num_rows
        for stolen in (handle, bound):
            with pytest.raises(REFUSED, match="somebody else"):
                two.run(stolen)
            with pytest.raises(REFUSED, match="somebody else"):
                two.bind(stolen, small)
    two.close_statement(handle)  # closes what is one's own: nothing
    assert one.run(bound).num_rows == large.num_rows


def test_transactions(pair: tuple[RawClient, RawClient]) -> None:
    """Nobody works in another's transaction, or ends it; and what it has locked stays with its connection."""
    one, two = pair
    begun = pb.ActionBeginTransactionResult.FromString(
        unpack(one.act("BeginTransaction", pack(pb.ActionBeginTransactionRequest()))[0]).value
    ).transaction_id
    write = pb.CommandStatementQuery(query="create temporary table mine as select 1 as a", transaction_id=begun)
    one.info(write)
    looked = pb.CommandStatementQuery(query="select a from mine", transaction_id=begun)
    assert one.read(looked).num_rows == 1
    end = pb.ActionEndTransactionRequest(
        transaction_id=begun, action=pb.ActionEndTransactionRequest.END_TRANSACTION_ROLLBACK
    )
    for attempt in (lambda: two.read(looked), lambda: two.act("EndTransaction", pack(end))):
        with pytest.raises(pa.ArrowInvalid, match="no such transaction"):
            attempt()
    assert one.read(looked).num_rows == 1
    one.act("EndTransaction", pack(end))


def test_results_of_what_writes(pair: tuple[RawClient, RawClient], people: EmbeddedPostgres) -> None:
    """They are kept for whoever wrote; nobody else reads them, and nobody makes it happen again."""
    one, two = pair
    with people.connect(user="postgres") as connection:
        connection.execute("create table ledger (a int); grant select, insert on ledger to public")
        try:
            written = one.info(pb.CommandStatementQuery(query="insert into ledger values (7) returning a"))
            ticket = written.endpoints[0].ticket.ticket
            with pytest.raises(flight.FlightUnauthorizedError, match="somebody else"):
                two.get(ticket)
            assert one.get(ticket)["a"].to_pylist() == [7]
            assert connection.execute("select count(*) from ledger").fetchone() == (1,)
        finally:
            connection.execute("drop table ledger")


def test_the_spool(pair: tuple[RawClient, RawClient]) -> None:
    one, two = pair
    command = {"sql": "select random() as r", "options": {"max_age_s": 600}}
    raw = json.dumps(command).encode()
    mine = one.get(raw)
    assert one.get(raw) == mine
    assert two.get(raw) != mine
    (entry,) = act(one, "spool.list")
    assert entry["key"] not in json.dumps(act(two, "spool.list"))
    assert act(two, "spool.drop", entry["key"].encode()) == {"dropped": 0}
    assert one.get(raw) == mine


def test_sessions(pair: tuple[RawClient, RawClient]) -> None:
    """What one left in a session of PostgreSQL's is not found by the other, nor by the next read."""
    one, two = pair
    assert one.query("select set_config('app.user', 'one', false) as a").num_rows == 1
    pids = [{client.query("select pg_backend_pid() as p")["p"][0].as_py() for _ in range(4)} for client in pair]
    assert not pids[0] & pids[1]
    for client in (one, two):
        assert client.query("select current_setting('app.user', true) as a")["a"][0].as_py() in (None, "")


def test_identities_leave_when_they_are_idle(people: EmbeddedPostgres) -> None:
    """All connections together stay within the limit; the password is not asked for again."""
    flags = ("--login", "postgres", "--max-connections", "4", "--identity-connections", "4")
    with ServerProcess(people.dsn(), *flags, "--identity-idle-s", "0.5") as server:
        for user in ("alice", "bob", "alice"):
            with RawClient(server.uri, {"authorization": basic(user, PASSWORDS[user])}) as client:
                assert client.query("select current_user::text as u")["u"][0].as_py() == user
            assert connections(people, server) <= 4
        eventually(lambda: connections(people, server), lambda count: count == 0)


def test_more_identities_than_there_is_room_for(people: EmbeddedPostgres) -> None:
    """They take turns: everybody is served as themselves, and threads and connections do not pile up."""
    names = ("alice", "bob")
    flags = ("--login", "postgres", "--max-connections", "2", "--identity-connections", "2")
    with ServerProcess(people.dsn(), *flags, "--identity-idle-s", "0.5") as server:

        def ask(number: int) -> tuple[str, str]:
            user = names[number % 2]
            with RawClient(server.uri, {"authorization": basic(user, PASSWORDS[user])}) as client:
                return user, client.query("select current_user::text as u")["u"][0].as_py()

        assert ask(0) == ("alice", "alice")
        threads = server.process.num_threads()
        with ThreadPoolExecutor(6) as pool:
            asked = [pool.submit(ask, number) for number in range(24)]
            while not all(each.done() for each in asked):
                assert connections(people, server) <= 2 + ATTEMPTS_AT_ONCE
        assert [user for user, found in map(Future.result, asked) if user != found] == []
        eventually(lambda: connections(people, server), lambda count: count == 0)
        eventually(server.process.num_threads, lambda count: count <= threads + 4)


def test_too_many_identities(people: EmbeddedPostgres) -> None:
    """One that cannot be served waits, and is told; those that are served are not cut off."""
    flags = ("--login", "postgres", "--max-connections", "2", "--identity-connections", "2")
    with ServerProcess(people.dsn(), *flags, "--connection-wait-s", "0.5") as server:
        alice, bob = (
            RawClient(server.uri, {"authorization": basic(name, PASSWORDS[name])}) for name in ("alice", "bob")
        )
        with alice, bob:
            many = json.dumps({"sql": "select repeat('x', 1000) from generate_series(1, 200000)"}).encode()
            reader = alice.flight.do_get(flight.Ticket(many), alice.options)
            reader.read_chunk()
            with pytest.raises(flight.FlightUnavailableError, match="1 identities are served"):
                bob.query("select 1 as a")
            reader.cancel()
            eventually(lambda: _works(bob))


def _works(client: RawClient) -> bool:
    try:
        return client.query("select 1 as a").num_rows == 1
    except flight.FlightUnavailableError:
        return False


def _bytes_value(body: bytes) -> bytes:
    return bytes(BytesValue(value=body).SerializeToString())
