"""A session only reads, takes one statement, and leaves nothing for the next user."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from psycopg import pq

from kernels.errors import ConnectionLostError, PgflightError, PostgresError, RequestError
from tests.helpers import wire
from tests.helpers.waiting import eventually
from transport.opening import SessionOptions
from transport.pool import ConnectionPool, PoolOptions
from transport.session import Session

WRITES = {
    "function": "select scratch.write() as v",
    "cte": "with w as (insert into scratch.t values (9) returning a) select a from w",
    "insert returning": "insert into scratch.t values (9) returning a",
    "update returning": "update scratch.t set a = 9 returning a",
    "delete returning": "delete from scratch.t returning a",
    "nextval": "select nextval('scratch.s') as v",
    "setval": "select setval('scratch.s', 100) as v",
    "for update": "select a from scratch.t for update",
    "large object": "select lo_create(0) as v",
    "read write": "select set_config('transaction_read_only', 'off', false) as v, scratch.write() as w",
    "read write, local": "select set_config('transaction_read_only', 'off', true) as v, scratch.write() as w",
    "default": "select set_config('default_transaction_read_only', 'off', false) as v, scratch.write() as w",
    "isolation": "select set_config('transaction_isolation', 'read committed', false) as v, scratch.write() as w",
    "create": "select scratch.run('create table scratch.u (a int)') as v",
    "temporary": "select scratch.run('create temp table u (a int)') as v",
    "transaction": "select scratch.run('set transaction read write') as v",
    "commit": "select scratch.run('commit') as v",
    "explain analyze": "explain analyze insert into scratch.t values (9)",
    "call": "call scratch.commits(null)",
}
NOT_READS = {
    "set": "set work_mem to '8MB'",
    "begin": "begin",
    "commit": "commit",
    "rollback": "rollback",
    "create": "create table scratch.u (a int)",
    "insert": "insert into scratch.t values (9)",
    "copy": "copy scratch.t to stdout",
    "copy from": "copy scratch.t from stdin",
    "copy program": "copy scratch.t to program 'touch {marker}'",
    "do": "do $$ begin perform 1; end $$",
    "listen": "listen news",
    "prepare": "prepare p as select 1",
    "lock": "lock table scratch.t",
    "empty": "",
    "comment": "-- nothing",
    "semicolon": ";",
    "no columns": "select",
}
INJECTIONS = (
    "select 1) to program 'touch {marker}' --",
    "select 1\n) to program 'touch {marker}' --",
    "select 1) to program 'touch {marker}' /*",
    "select 1); copy (select 1) to program 'touch {marker}'; --",
    "(select 1)) to program 'touch {marker}' --",
    "select 1 as a) to stdout; select (1",
    "select 1 as a) as q(c0); drop table scratch.t; --",
)
SEVERAL = (
    "select 1; select 2",
    "select 1; drop table scratch.t",
    "select 1;; select 2",
    "select 1; -- c\n select 2",
)
ENDINGS = (
    "{};",
    "{} ;",
    "{};\n",
    "{} -- comment",
    "{} -- comment;",
    "{}; -- comment",
    "{}; -- comment ' \" $$ ;\n",
    "{};;",
    "{} ; ; ;",
    "{} /* a */",
    "{} /* ; */ ; /* b; */",
    "{} /* /* nested ; */ ; */",
    "{}\n;\n-- a;\n/* b; */\n;",
    "{}\t\r\n",
    "-- first;\n{}; --",
    "/* first; */ {}",
)
STATEMENTS = {
    "plain": ("select 7 as a", [7]),
    "cast": ("select point '(1,2)' as a", ["(1,2)"]),
    "semicolons in it": ("select ';' || $$ ; $$ || $é$;$é$ || E'\\';' || U&'\\003b' as \"a;\"", ["; ; ;';;"]),
    "backslash": (r"select '\' || ';' as a", [r"\;"]),
    "cast of semicolons": ("select point '(1,2)' as \"a;--\"", ["(1,2)"]),
    "nested": ("select array[';', '--'] as \"a;\"", [[";", "--"]]),
    "order": ("select point(g, g) as a from generate_series(3, 1, -1) g order by g", ["(1,1)", "(2,2)", "(3,3)"]),
    "with": ("with w(a) as (values (1), (2)) select a from w order by a desc", [2, 1]),
    "values": ("values (1), (2)", [1, 2]),
    "table": ("table scratch.t", [1]),
    "union": ("select 1 as a union all select 2", [1, 2]),
}


@pytest.fixture
def objects(scratch: psycopg.Connection) -> psycopg.Connection:
    """A table, a sequence and functions that write."""
    scratch.execute(
        """
        create table scratch.t (a int); insert into scratch.t values (1); create sequence scratch.s;
        create function scratch.write() returns int language sql volatile as
            $$ insert into scratch.t values (9) returning a $$;
        create function scratch.run(statement text) returns int language plpgsql as
            $$ begin execute statement; return 1; end $$;
        create procedure scratch.commits(inout a int) language plpgsql as $$ begin commit; insert into scratch.t
            values (9); a := 1; end $$;
        """
    )
    return scratch


def untouched(objects: psycopg.Connection) -> bool:
    """Tell whether nothing was written."""
    rows = objects.execute("select array_agg(a) from scratch.t").fetchone()
    sequence = objects.execute("select last_value, is_called from scratch.s").fetchone()
    tables = objects.execute("select to_regclass('scratch.u')").fetchone()
    return rows == ([1],) and sequence == (1, False) and tables == (None,)


@pytest.mark.parametrize("reader", ["tcp", "libpq"])
@pytest.mark.parametrize("name", WRITES)
def test_writing_is_refused(name: str, route, objects) -> None:
    with pytest.raises(PostgresError) as caught:
        route.read(WRITES[name])
    assert caught.value.sqlstate in {"25006", "25001", "0A000", "2D000", "42601", "42809", "42P01"}, str(
        caught.value
    )
    assert untouched(objects)


@pytest.mark.parametrize("reader", ["tcp"])
@pytest.mark.parametrize("name", NOT_READS)
def test_what_is_no_read_is_refused(name: str, route, objects, tmp_path: Path) -> None:
    with pytest.raises((RequestError, PostgresError)):
        route.read(NOT_READS[name].format(marker=tmp_path / "marker"))
    assert untouched(objects)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("reader", ["tcp", "libpq"])
@pytest.mark.parametrize("text", INJECTIONS)
def test_injection_is_refused(text: str, route, objects, tmp_path: Path) -> None:
    """Also where PostgreSQL would let this role run programs."""
    tmp_path.chmod(0o777)
    dsn = route.server.dsn(user="postgres", unix=True)
    superuser = ConnectionPool(dsn, PoolOptions(max_connections=1))
    for pool in (route.pool, superuser):
        with pytest.raises(PostgresError) as caught:
            list(
                wire.stream(pool, route.memory.allocate, text.format(marker=tmp_path / "marker"), **route.options)
            )
        assert caught.value.sqlstate == "42601"
    eventually(lambda: superuser.statistics().get("pool_available") == 1)
    superuser.close()
    assert not list(tmp_path.iterdir())
    assert untouched(objects)


@pytest.mark.parametrize("reader", ["tcp"])
@pytest.mark.parametrize("text", SEVERAL)
def test_several_statements_are_refused(text: str, route, objects) -> None:
    with pytest.raises(PostgresError) as caught:
        route.read(text)
    assert caught.value.sqlstate == "42601"
    assert untouched(objects)


@pytest.mark.parametrize("reader", ["tcp"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_endings(ending: str, route, objects) -> None:
    """Semicolons and comments at the end are the user's business, enclosed or not."""
    for text, wanted in STATEMENTS.values():
        assert route.read(ending.format(text)).column(0).to_pylist() == wanted


@pytest.mark.parametrize("reader", ["tcp"])
def test_zero_byte(route) -> None:
    with pytest.raises(RequestError, match="zero byte"):
        route.read("select 1 as a \0 --")


@pytest.mark.parametrize("reader", ["tcp"])
def test_other_statements_with_rows(server, memory) -> None:
    """The extended protocol serves what COPY refuses."""
    pool = ConnectionPool(server.dsn(), PoolOptions(max_connections=1))

    def read(sql: str) -> list[object]:
        return [
            value for batch in wire.stream(pool, memory.allocate, sql) for value in batch.column(0).to_pylist()
        ]

    assert read("show server_encoding") == ["UTF8"]
    assert "Result" in str(read("explain select 1")[0])
    eventually(lambda: pool.statistics().get("pool_available") == 1)
    pool.close()


STATE = (
    "select set_config('work_mem', '77MB', false) as a, set_config('search_path', 'nowhere', false) as b,"
    " set_config('my.secret', 'mine', false) as c, set_config('TimeZone', 'Asia/Tokyo', false) as d,"
    " pg_advisory_lock(4711) as e, scratch.run('prepare mine as select 1') as f,"
    " set_config('statement_timeout', '1', true) as g, set_config('application_name', 'mine', false) as h,"
    " set_config('standard_conforming_strings', 'off', false) as i, setseed(0.5) as j,"
    " set_config('default_transaction_read_only', 'off', false) as k, set_config('lock_timeout', '1', false) as l"
)
LOOK = (
    "select current_setting('work_mem'), current_setting('search_path'), nullif(current_setting('my.secret', true), ''),"
    " current_setting('TimeZone'), current_setting('application_name'), current_setting('client_encoding'),"
    " current_setting('standard_conforming_strings'), current_setting('default_transaction_read_only'),"
    " (select count(*) from pg_locks where locktype = 'advisory'), (select count(*) from pg_prepared_statements),"
    " (select count(*) from pg_cursors), current_setting('role'), current_setting('session_authorization')"
)


def look(pool: ConnectionPool) -> tuple[object, ...]:
    """Return what a session can see of those before it."""
    (connection,) = pool.take()
    row = connection.execute(LOOK).fetchone()
    connection.rollback()
    pool.give_back(connection)
    return (connection.info.backend_pid, *row)


def test_nothing_is_left_for_the_next_user(route, objects) -> None:
    before = look(route.pool)
    route.read(STATE)
    assert look(route.pool) == before
    for suffix in (", 1/0 as z", ", date 'infinity' as z"):
        with pytest.raises(PgflightError):
            route.read(STATE + suffix)
        assert look(route.pool)[1:] == before[1:]


@pytest.mark.parametrize("reader", ["tcp", "tls"])
def test_settings_of_a_session(server) -> None:
    """A transaction that cannot write, with one snapshot and the limits asked for."""
    pool = ConnectionPool(server.dsn(), PoolOptions(max_connections=1))
    names = ("transaction_read_only", "transaction_isolation", "statement_timeout", "lock_timeout", "client_encoding",
             "client_connection_check_interval", "standard_conforming_strings", "application_name")  # fmt: skip
    with Session(pool, SessionOptions(statement_timeout_s=1.5, lock_timeout_s=2)) as session:
        connection = session._connection
        found = [connection.execute(f"show {name}").fetchone()[0] for name in names]
        assert session.backend_pid == connection.info.backend_pid
        assert connection.info.transaction_status == pq.TransactionStatus.INTRANS
    assert found == ["on", "repeatable read", "1500ms", "2s", "UTF8", "1s", "on", "pgflight"]
    eventually(lambda: pool.statistics().get("pool_available") == 1)
    pool.close()


@pytest.mark.parametrize("reader", ["tcp", "tls"])
def test_a_session_sees_one_snapshot(server, objects) -> None:
    pool = ConnectionPool(server.dsn(), PoolOptions(max_connections=1))
    with Session(pool, SessionOptions()) as session:
        session.describe("select 1")
        objects.execute("insert into scratch.t values (2)")
        assert session._connection.execute("select count(*) from scratch.t").fetchone() == (1,)
    with Session(pool, SessionOptions()) as session:
        assert session._connection.execute("select count(*) from scratch.t").fetchone() == (2,)
    eventually(lambda: pool.statistics().get("pool_available") == 1)
    pool.close()


def test_nothing_is_held_between_uses(route, objects) -> None:
    """No transaction, no snapshot, no lock: the table can be dropped at once."""
    route.read("select a from scratch.t")
    objects.execute("set lock_timeout to '5s'")
    objects.execute("drop table scratch.t")
    objects.execute("create table scratch.t (a int)")


@pytest.mark.parametrize("reader", ["tcp", "tls"])
def test_wrong_number_of_parameters(server) -> None:
    pool = ConnectionPool(server.dsn(), PoolOptions(max_connections=1))
    with Session(pool, SessionOptions()) as session, pytest.raises(RequestError, match="takes 1 parameters, 0"):
        session.describe("select $1::int as a")
    with Session(pool, SessionOptions()) as session, pytest.raises(RequestError, match="takes 0 parameters, 2"):
        session.describe("select 1 as a", parameters=2)
    eventually(lambda: pool.statistics().get("pool_available") == 1)
    pool.close()


def test_no_server_is_a_lost_connection() -> None:
    """Not an overload: the same request will not succeed a moment later."""
    pool = ConnectionPool("host=127.0.0.1 port=1 dbname=none user=nobody", PoolOptions(wait_s=0.5))
    with pytest.raises(ConnectionLostError):
        Session(pool, SessionOptions())
    pool.close()
