"""What the catalog tells: types, origins, promises, and what a role may see."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kernels.column import Column
from kernels.plan import plan
from tests.helpers import oracle, wire
from tests.helpers.waiting import eventually
from transport.opening import SessionOptions
from transport.pool import ConnectionPool, PoolOptions
from transport.session import Session

READERS_DO_NOT_MATTER = pytest.mark.parametrize("reader", ["tcp"])
pytestmark = READERS_DO_NOT_MATTER


@pytest.fixture
def pool(server) -> Iterator[ConnectionPool]:
    """Connections over TCP."""
    connections = ConnectionPool(server.dsn(), PoolOptions(max_connections=2))
    yield connections
    eventually(lambda: settled(connections))
    connections.close()


def settled(pool: ConnectionPool) -> bool:
    """Tell whether no connection is being reset."""
    counts = pool.statistics()
    return counts.get("pool_available", 0) == counts.get("pool_size", 0)


def describe(pool: ConnectionPool, sql: str, *, whole: bool = False) -> tuple[Column, ...]:
    """Describe a statement in a session of its own."""
    with Session(pool, SessionOptions()) as session:
        return session.describe(sql, trust_not_null=whole)


def read_table(pool: ConnectionPool, memory, table: str) -> tuple[list[bool], list[list[object]]]:
    """Read a whole relation as the server does; return (nullable, columns)."""
    sql = f"select * from {table}"
    with Session(pool, SessionOptions()) as session:
        planned = plan(session.describe(sql, trust_not_null=True))
        replies = session.run(wire.Request(sql, copy=False), memory.allocate, lambda: None)
        decoder = wire.make_decoder(planned, "extended", allocate=memory.allocate)
        table_read = wire.pa.Table.from_batches(wire.decode_replies(replies, decoder, copy=False), planned.schema)
    return [field.nullable for field in planned.schema], [oracle.canonical(c) for c in table_read.columns]


def test_columns(pool, scratch) -> None:
    scratch.execute(
        "create domain scratch.price as numeric(10,2); create type scratch.mood as enum ('sad');"
        "create table scratch.t (id int4 not null, p scratch.price, v varchar(7), m scratch.mood, a int4[]);"
        "comment on column scratch.t.id is 'the é key'"
    )
    columns = describe(pool, "select * from scratch.t", whole=True)
    assert [(column.name, column.display_type, column.kind, column.not_null) for column in columns] == [
        ("id", "integer", "b", True),
        ("p", "numeric(10,2)", "b", False),
        ("v", "character varying(7)", "b", False),
        ("m", "scratch.mood", "e", False),
        ("a", "integer[]", "b", False),
    ]
    assert columns[0].comment == "the é key"
    assert columns[4].category == "A"
    assert columns[3].send == "enum_send"


def test_a_type_without_a_send_function(pool) -> None:
    assert describe(pool, "select null::aclitem as a")[0].send is None


def test_not_null_is_promised_for_whole_relations_only(pool, scratch) -> None:
    scratch.execute("create table scratch.t (a int not null)")
    assert describe(pool, "select a from scratch.t", whole=True)[0].not_null
    assert not describe(pool, "select a from scratch.t")[0].not_null
    outer_join = "select t.a from (values (1)) as v(x) left join scratch.t on false"
    assert not describe(pool, outer_join)[0].not_null


def test_not_null_of_views_is_not_promised(pool, scratch, memory) -> None:
    scratch.execute(
        "create table scratch.t (a int not null);"
        "create view scratch.v as select t.a from (values (1)) as v(x) left join scratch.t on false"
    )
    assert read_table(pool, memory, "scratch.v") == ([True], [[None]])


def test_not_null_that_children_need_not_keep(pool, scratch, memory) -> None:
    """NO INHERIT: a child's rows belong to the relation and may be NULL."""
    scratch.execute(
        "create table scratch.parent (a int, constraint filled not null a no inherit);"
        "create table scratch.child () inherits (scratch.parent);"
        "insert into scratch.parent values (1); insert into scratch.child values (null)"
    )
    assert read_table(pool, memory, "scratch.parent") == ([True], [[1, None]])


def test_not_null_that_is_not_valid_yet(pool, scratch, memory) -> None:
    scratch.execute(
        "create table scratch.t (a int); insert into scratch.t values (null);"
        "alter table scratch.t add constraint filled not null a not valid"
    )
    assert read_table(pool, memory, "scratch.t") == ([True], [[None]])


def test_not_null_of_partitions(pool, scratch, memory) -> None:
    scratch.execute(
        "create table scratch.p (a int not null, b int) partition by range (a);"
        "create table scratch.p1 partition of scratch.p for values from (0) to (10);"
        "insert into scratch.p values (1, null)"
    )
    assert read_table(pool, memory, "scratch.p") == ([False, True], [[1], [None]])


def test_generated_and_dropped_columns(pool, scratch, memory) -> None:
    scratch.execute(
        "create table scratch.t (gone int, a int not null, b int generated always as (a * 2) stored,"
        " c int generated always as (a * 3) virtual);"
        "alter table scratch.t drop column gone; insert into scratch.t values (7)"
    )
    assert read_table(pool, memory, "scratch.t")[1] == [[7], [14], [21]]


def test_a_type_made_after_the_pool_began(pool, scratch) -> None:
    """The cache asks for what it does not know."""
    describe(pool, "select 1 as a")
    for label in ("one", "two"):
        scratch.execute(f"drop type if exists scratch.e; create type scratch.e as enum ('{label}')")
        (column,) = describe(pool, f"select '{label}'::scratch.e as v")
        assert (column.kind, column.type_name) == ("e", "e")


def test_tables(pool, scratch, memory) -> None:
    scratch.execute(
        "create table scratch.t (a int not null, p numeric(10,2)); create view scratch.v as select 1 as x;"
        "create materialized view scratch.m as select 2 as y;"
        "create table scratch.parted (a int) partition by list (a);"
        "create table scratch.part partition of scratch.parted for values in (1);"
        "create sequence scratch.s; create table scratch.none ();"
        'create table scratch."Wéird ""name""" ("a b" int)'
    )
    with Session(pool, SessionOptions()) as session:
        tables = {table.name: table for table in session.tables("scratch.%")}
    assert sorted(tables) == ['Wéird "name"', "m", "parted", "t", "v"]
    assert [column.display_type for column in tables["t"].columns] == ["integer", "numeric(10,2)"]
    assert tables["t"].whole
    assert tables['Wéird "name"'].columns[0].name == "a b"
    for name, table in tables.items():
        quoted = name.replace('"', '""')
        described = describe(pool, f'select * from scratch."{quoted}"', whole=True)
        assert plan(described).schema.equals(plan(table.columns).schema, check_metadata=True), name


def test_tables_that_may_not_be_read(server, pool, scratch) -> None:
    """Only what the role may read, column by column."""
    scratch.execute("create table scratch.hidden (a int); create table scratch.partly (a int, b int);")
    with server.connect(user="postgres") as superuser:
        superuser.execute(
            "create role guest login; grant usage on schema scratch to guest; grant select (b) on scratch.partly to guest"
        )
        try:
            guest = ConnectionPool(server.dsn(user="guest"), PoolOptions(max_connections=1))
            with Session(guest, SessionOptions()) as session:
                (table,) = session.tables("scratch.%")
            eventually(lambda: guest.statistics().get("pool_available") == 1)
            guest.close()
        finally:
            superuser.execute("drop owned by guest; drop role guest")
    assert (table.name, [column.name for column in table.columns], table.whole) == ("partly", ["b"], False)


def test_estimates(pool, scratch) -> None:
    scratch.execute("create table scratch.t as select g from generate_series(1, 10000) g")
    with Session(pool, SessionOptions()) as session:
        rows, size = session.estimate("scratch.t")
        assert (rows, size > 300_000) == (-1, True)
        assert session.estimate("scratch.nothing") == (-1, -1)
    scratch.execute("analyze scratch.t; create view scratch.v as select 1 as a")
    with Session(pool, SessionOptions()) as session:
        assert session.estimate("scratch.t")[0] == 10_000
        assert session.estimate("scratch.v") == (-1, -1) or session.estimate("scratch.v")[1] == -1
