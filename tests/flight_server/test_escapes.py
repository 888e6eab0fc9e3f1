"""Ways out that were open elsewhere: programs through COPY, statements behind a statement, another role, writing."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pyarrow as pa
import pytest
from pyarrow import flight

from demo.postgres import EmbeddedPostgres
from flight_sql import pack
from flight_sql.proto import flight_sql_pb2 as pb
from tests.helpers.server import ServerProcess

REFUSED = (flight.FlightError, pa.ArrowException)
STATEMENTS = [
    "copy (select 1) to program '{command}'",
    "copy (select 1) to program '{command}' --",
    "select 1) to program '{command}' --",
    "(select 1) to program '{command}' --",
    "select 1\n) to program '{command}' --\n",
    "select 1) to stdout; copy (select 1) to program '{command}'; --",
    "select 1; copy (select 1) to program '{command}'",
    "explain analyze copy (select 1) to program '{command}'",
    "do $$ begin execute $c$copy (select 1) to program '{command}'$c$; end $$",
]
TABLES = [
    {"table": ["t) to program '{command}' --"]},
    {"table": ["t\") to program '{command}' --"]},
    {"table": ["escapes"], "columns": ["id\") to program '{command}' --"]},
    {"table": ["escapes"], "where": "true) to program '{command}' --"},
    {"table": ["escapes"], "where": "true)) to program '{command}' --"},
    {"table": ["escapes"], "where": "true\n) to program '{command}' --"},
    {"table": ["escapes"], "where": "true; copy (select 1) to program '{command}'; --"},
]


@pytest.fixture(scope="module")
def tables(postgres: EmbeddedPostgres) -> Iterator[None]:
    """A table, one of somebody else's, and a function that writes."""
    with postgres.connect() as connection, postgres.connect(user="postgres") as superuser:
        connection.execute("create table escapes (id int)")
        connection.execute(
            "create function escape() returns int language sql volatile as 'insert into escapes values (1) returning id'"
        )
        superuser.execute("create table not_yours as select 'secret' as word")
        yield
        superuser.execute("drop table not_yours; drop function escape; drop table escapes")


@pytest.fixture(scope="module")
def superuser_server(postgres: EmbeddedPostgres) -> Iterator[ServerProcess]:
    """One that could run programs: nobody should start it, and not even it does."""
    with ServerProcess(postgres.dsn(user="postgres"), "--allow-superuser") as process:
        yield process


@pytest.mark.usefixtures("tables")
def test_no_program_is_run(superuser_server: ServerProcess, postgres: EmbeddedPostgres) -> None:
    proof = postgres.socket_directory / "escaped"  # where PostgreSQL may write
    command = f"touch {proof}"
    plain = [text.format(command=command).encode() for text in STATEMENTS]
    plain += [json.dumps(parts).replace("{command}", command).encode() for parts in TABLES]
    packed = [pack(pb.CommandStatementQuery(query=raw.decode())) for raw in plain[: len(STATEMENTS)]]
    with flight.connect(superuser_server.uri) as client:
        for raw in plain + packed:
            with pytest.raises(REFUSED) as caught:
                client.get_flight_info(flight.FlightDescriptor.for_command(raw))
            assert "internal error" not in str(caught.value), raw
            if raw in plain:
                with pytest.raises(REFUSED):
                    client.do_get(flight.Ticket(raw)).read_all()
        assert not proof.exists()
        # The check can fail: PostgreSQL itself would run the program, and leave the proof.
        with postgres.connect(user="postgres") as connection:
            connection.execute(STATEMENTS[0].format(command=command).encode())
        assert proof.exists()


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize(
    "query",
    [
        "select * from not_yours",
        "select set_config('role', 'postgres', true), word from not_yours",
        "select set_config('role', 'none', true), (select word from ts_stat('select word::tsvector from not_yours'))",
        "select set_config('session_authorization', 'postgres', true), 1",
        "select query_to_xml('select * from not_yours', true, false, '')::text",
        "select pg_read_file('/etc/passwd')",
        "select escape()",
        "select set_config('transaction_read_only', 'off', true), escape()",
        "select set_config('default_transaction_read_only', 'off', false), escape()",
        "with gone as (delete from escapes returning 1) select * from gone",
        "select nextval('pg_catalog.pg_class_oid_seq')",
        "select * from escapes for update",
    ],
)
def test_no_other_role_and_no_writing(client: flight.FlightClient, postgres: EmbeddedPostgres, query: str) -> None:
    with pytest.raises(REFUSED) as caught:
        client.do_get(flight.Ticket(query.encode())).read_all()
    assert "internal error" not in str(caught.value)
    assert "secret" not in str(caught.value)
    with postgres.connect() as connection:
        assert connection.execute("select count(*) from escapes").fetchone() == (0,)


@pytest.mark.usefixtures("tables")
def test_what_a_read_sets_ends_with_it(client: flight.FlightClient) -> None:
    """Nor is the next read on the same connection one that may write."""
    for name, value in (
        ("search_path", "nowhere"),
        ("default_transaction_read_only", "off"),
        ("bytea_output", "escape"),
    ):
        before = _setting(client, name)
        for local in ("true", "false"):
            client.do_get(flight.Ticket(f"select set_config('{name}', '{value}', {local})".encode())).read_all()
        assert {_setting(client, name) for _ in range(5)} == {before}
    with pytest.raises(REFUSED, match="read-only"):
        client.do_get(flight.Ticket(b"select escape()")).read_all()


def _setting(client: flight.FlightClient, name: str) -> str:
    query = f"select current_setting('{name}') as value"
    return str(client.do_get(flight.Ticket(query.encode())).read_all()["value"][0])
