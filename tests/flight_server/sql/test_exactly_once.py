"""Statements take effect once for each time they are asked for, whichever calls ask: effects counted in PostgreSQL."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import psycopg
import pyarrow as pa
import pytest
from adbc_driver_flightsql import dbapi
from pyarrow import flight

from flight_sql import pack
from flight_sql.proto import flight_sql_pb2 as pb
from tests.flight_server.sql.rpc import RawClient
from tests.helpers.waiting import eventually

NO_ROWS = pa.table({})


@dataclass(frozen=True)
class Kind:
    """A statement, what it answers, and what it does."""

    sql: str
    rows: int
    effects: int


KINDS = {
    "SELECT": Kind("select note from scratch.notes union all select 'x' limit 1", rows=1, effects=0),
    "volatile SELECT": Kind("select scratch.noted('x')", rows=1, effects=1),
    "INSERT RETURNING": Kind("insert into scratch.notes (note) values ('x') returning note", rows=1, effects=1),
    "INSERT in WITH": Kind(
        "with w as (insert into scratch.notes (note) values ('x') returning note) select * from w", 1, 1
    ),
    "INSERT": Kind("insert into scratch.notes (note) values ('x')", rows=0, effects=1),
    "DDL": Kind("create index on scratch.notes (note)", rows=0, effects=1),  # each makes one more
}
CALLS = {
    "prepare": ("schema",),
    "GetFlightInfo": ("info",),
    "DoGet": ("info", "get"),
    "DoPut": ("put",),
    "retry": ("info", "get", "get"),
    "cancel": ("info", "cancel", "get"),
    "all over again": ("info", "get", "info", "get"),
    "this and that": ("put", "info", "schema", "put", "get", "cancel"),
}
EXECUTING = ("info", "put")

SLOW = {
    "SELECT": "select pg_sleep(60)::text",
    "volatile SELECT": "select scratch.noted(pg_sleep(60)::text)",
    "INSERT RETURNING": "insert into scratch.notes (note) select pg_sleep(60)::text returning note",
    "DDL": "create table scratch.slow as select pg_sleep(60)::text",
}


class Player:
    """Makes the calls about one statement."""

    def __init__(self, client: RawClient, kind: Kind, *, prepared: bool) -> None:
        self._client = client
        self._kind = kind
        self._query: pb.CommandStatementQuery | pb.CommandPreparedStatementQuery
        self._update: pb.CommandStatementUpdate | pb.CommandPreparedStatementUpdate
        if prepared:
            handle = client.prepare(kind.sql).prepared_statement_handle
            self._query = pb.CommandPreparedStatementQuery(prepared_statement_handle=handle)
            self._update = pb.CommandPreparedStatementUpdate(prepared_statement_handle=handle)
        else:
            self._query = pb.CommandStatementQuery(query=kind.sql)
            self._update = pb.CommandStatementUpdate(query=kind.sql)
        self._info: flight.FlightInfo | None = None

    def schema(self) -> None:
        assert len(self._client.schema(self._query)) == self._kind.rows  # a column where there are rows

    def info(self) -> None:
        self._info = self._client.info(self._query)
        assert len(self._info.endpoints) == self._kind.rows

    def get(self) -> None:
        assert self._info is not None
        for endpoint in self._info.endpoints:
            assert self._client.get(endpoint.ticket.ticket).num_rows == 1

    def put(self) -> None:
        answer = pb.DoPutUpdateResult.FromString(self._client.put(self._update, NO_ROWS) or b"")
        assert answer.record_count in (1, -1)

    def cancel(self) -> None:
        assert self._info is not None
        self._client.act("CancelQuery", pack(pb.ActionCancelQueryRequest(info=self._info.serialize())))


def effects(database: psycopg.Connection) -> int:
    row = database.execute(
        "select (select count(*) from scratch.notes)"
        " + (select count(*) - 1 from pg_index where indrelid = 'scratch.notes'::regclass)"
        " + (select count(*) from pg_class where oid = to_regclass('scratch.slow'))"
    ).fetchone()
    assert row is not None
    return row[0]


@pytest.mark.parametrize("prepared", [False, True], ids=["statement", "prepared"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("calls", CALLS)
def test_once_for_each_time(
    raw_writer: RawClient, notes: psycopg.Connection, calls: str, kind: str, prepared: bool
) -> None:
    """Planning and updating execute; preparing, describing, reading, reading again and cancelling what is over do not."""
    player = Player(raw_writer, KINDS[kind], prepared=prepared)
    executed = 0
    for call in CALLS[calls]:
        getattr(player, call)()
        executed += call in EXECUTING
        assert effects(notes) == executed * KINDS[kind].effects


@pytest.mark.parametrize("kind", SLOW)
def test_what_is_cancelled_has_not_happened(
    writer: dbapi.Connection, notes: psycopg.Connection, kind: str
) -> None:
    """From another thread: PostgreSQL stops, and nothing of it stays."""
    sleeping = (
        "select count(*) from pg_stat_activity"
        " where query like '%%pg_sleep(60)%%' and state = 'active' and pid <> pg_backend_pid()"
    )
    with writer.cursor() as cursor:
        failed: list[BaseException] = []

        def run() -> None:
            try:
                cursor.execute(SLOW[kind])
                cursor.fetchall()
            except dbapi.Error as failure:
                failed.append(failure)

        thread = threading.Thread(target=run)
        thread.start()
        eventually(lambda: notes.execute(sleeping).fetchone() == (1,))
        cursor.adbc_cancel()
        thread.join(10)
        assert failed
        eventually(lambda: notes.execute(sleeping).fetchone() == (0,))
    assert effects(notes) == 0
