"""Python values -> PostgreSQL -> our bytes -> the same values, whatever the schema, the NULLs and the boundaries."""

from __future__ import annotations

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels.errors import OverloadedError
from kernels.layout import TILE_ROWS
from tests.helpers import oracle, wire
from tests.helpers.reading import read
from tests.kernels.random_tables import TableSpec, tables

EDGE_ROWS = sorted(
    {edge + near for edge in (0, TILE_ROWS, 2 * TILE_ROWS, 4 * TILE_ROWS) for near in (-1, 0, 1)} - {-1}
)
SMALL_BLOCK = 16 << 10
FEW = settings(
    max_examples=60,
    deadline=None,
    database=None,  # no directory of examples in the tree
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
MANY = settings(FEW, max_examples=1500)


def store(connection: psycopg.Connection, spec: TableSpec) -> list[list[object]]:
    """Make scratch.t anew; return the canonical columns."""
    rows = spec.generate()
    connection.execute("drop table if exists scratch.t")
    connection.execute(f"create table scratch.t (row int, {spec.ddl})")  # a heap does not keep the order
    with connection.cursor() as cursor, cursor.copy("copy scratch.t from stdin") as copy:
        for number, row in enumerate(rows):
            copy.write_row([number, *(literal for literal, _ in row)])
    return [[row[index][1] for row in rows] for index in range(len(spec.columns))]


def check(spec: TableSpec, connection, pool, memory, batch_sizes: tuple[int, ...]) -> None:
    """Read the table in all ways; every value must be there."""
    wanted = store(connection, spec)
    sql = "select " + ", ".join(f"c{index}" for index in range(len(wanted))) + " from scratch.t order by row"
    for framing in wire.FRAMINGS:
        for batch_bytes in batch_sizes:
            table = read(pool, memory, sql, framing=framing, batch_bytes=batch_bytes)
            assert table.num_rows == spec.rows
            for index, column in enumerate(table.columns):
                assert oracle.canonical(column) == wanted[index], spec.columns[index].ddl
                assert column.null_count == wanted[index].count(None)


@FEW
@given(spec=tables(st.sampled_from(EDGE_ROWS)))
def test_any_table(spec: TableSpec, database, pool, memory) -> None:
    """Around the boundaries of tiles; one block, and many."""
    check(spec, database, pool, memory, (SMALL_BLOCK, 1 << 20))


@FEW
@given(spec=tables(st.integers(1, 40), longest=60_000, most_columns=4))
def test_rows_larger_than_the_block(spec: TableSpec, database, pool, memory) -> None:
    """A row straddles several fills, and the block grows."""
    check(spec, database, pool, memory, (SMALL_BLOCK,))


@settings(FEW, max_examples=12)
@given(spec=tables(st.integers(3000, 6000), most_columns=3))
def test_more_rows_than_a_batch_holds(spec: TableSpec, database, pool, memory) -> None:
    check(spec, database, pool, memory, (SMALL_BLOCK,))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@MANY
@given(spec=tables(st.sampled_from(EDGE_ROWS) | st.integers(0, 1500), longest=5000, most_columns=12))
def test_many_tables(spec: TableSpec, database, pool, memory) -> None:
    check(spec, database, pool, memory, (SMALL_BLOCK, 100_000, 1 << 20))


@pytest.mark.parametrize("framing", wire.FRAMINGS)
def test_batches_are_as_large_as_asked(framing: str, pool, memory) -> None:
    """Wire bytes and fixed-width Arrow bytes of a batch stay within the target."""
    sql = "select g, g::int8 as h, g % 2 = 0 as b, null::float8 as f from generate_series(1, 50000) g"
    for batch_bytes in (SMALL_BLOCK, 1 << 18):
        batches = list(wire.stream(pool, memory.allocate, sql, framing=framing, batch_bytes=batch_bytes))
        assert sum(batch.num_rows for batch in batches) == 50_000
        assert len(batches) >= 50_000 * 21 // batch_bytes
        assert max(batch.nbytes for batch in batches) <= batch_bytes


@pytest.mark.parametrize("framing", wire.FRAMINGS)
def test_a_row_larger_than_the_limit_is_refused(framing: str, pool, memory) -> None:
    columns, recorded = wire.record(pool, "select repeat('x', 300000) as t", framing)
    with pytest.raises(OverloadedError, match="row exceeds"):
        wire.decode(columns, recorded, framing, block_bytes=SMALL_BLOCK, max_row_bytes=1 << 18)
    table = wire.decode(columns, recorded, framing, block_bytes=SMALL_BLOCK, max_row_bytes=1 << 19)
    assert table.column(0).to_pylist() == ["x" * 300_000]


def test_memory_is_used_again(database, pool, memory) -> None:
    """A NULL, a false and an empty text where the memory held something else before."""
    full = "select g::int8 as i, true as b, repeat('z', 50) as t, 9.99::numeric(10,2) as n from generate_series(1, 300) g"
    bare = "select null::int8 as i, false as b, ''::text as t, null::numeric(10,2) as n from generate_series(1, 300) g"
    for _ in range(3):
        assert read(pool, memory, full).column("t").to_pylist() == ["z" * 50] * 300
        table = read(pool, memory, bare)
        assert [column.null_count for column in table.columns] == [300, 0, 0, 300]
        assert set(table.column("b").to_pylist()) == {False}
        assert set(table.column("t").to_pylist()) == {""}
        del table
    assert memory.kept_bytes > 0
