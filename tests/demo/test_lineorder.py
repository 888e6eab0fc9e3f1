"""The SSB fact table: exact, reproducible, honest in its sums, and filled only when needed."""

import pytest
from psycopg import sql

from demo import lineorder
from demo.lineorder import ORDERS_PER_CHUNK, batches
from demo.postgres import EmbeddedPostgres

ROWS = 20_000

#: Of the first 20,000 rows' text forms: the same on every machine and with every NumPy.
DIGEST = "6384bb7f6b323e86090c2c555bf1207c"


@pytest.fixture(autouse=True)
def filled(server: EmbeddedPostgres) -> None:
    lineorder.fill(server.dsn(), ROWS)


def row(server: EmbeddedPostgres, query: str) -> tuple[object, ...]:
    with server.connect() as connection:
        found = connection.execute(query.encode()).fetchone()
        assert found is not None
        return found


def digest(server: EmbeddedPostgres) -> str:
    rows = "SELECT md5(string_agg(l::text, E'\\n' ORDER BY lo_orderkey, lo_linenumber)) FROM lineorder l"
    (value,) = row(server, rows)
    return str(value)


@pytest.mark.parametrize("rows", [1, 2, 100, 100_003])
def test_row_count_is_exact(server: EmbeddedPostgres, rows: int) -> None:
    assert lineorder.fill(server.dsn(), rows)
    assert row(server, "SELECT count(*) FROM lineorder") == (rows,)


def test_chunks_join_without_gap() -> None:
    sizes = [batch.num_rows for batch in batches(10 * ORDERS_PER_CHUNK)]
    assert len(sizes) > 2
    assert sum(sizes) == 10 * ORDERS_PER_CHUNK


def test_content_is_reproducible(server: EmbeddedPostgres) -> None:
    assert digest(server) == DIGEST


def test_second_fill_does_nothing(server: EmbeddedPostgres) -> None:
    file = row(server, "SELECT pg_relation_filenode('lineorder')")
    seen: list[int] = []
    assert not lineorder.fill(server.dsn(), ROWS, progress=seen.append)
    assert seen == [ROWS]
    assert row(server, "SELECT pg_relation_filenode('lineorder')") == file


@pytest.mark.parametrize(
    "change", ["DELETE FROM lineorder WHERE lo_linenumber = 1", "COMMENT ON TABLE lineorder IS NULL"]
)
def test_a_changed_table_is_filled_anew(server: EmbeddedPostgres, change: str) -> None:
    with server.connect() as connection:
        connection.execute(sql.SQL(change))
    assert lineorder.fill(server.dsn(), ROWS)
    assert digest(server) == DIGEST


def test_a_failed_fill_changes_nothing(server: EmbeddedPostgres) -> None:
    def fail(rows: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lineorder.fill(server.dsn(), ROWS + 1, progress=fail)
    assert digest(server) == DIGEST


def test_progress_rises_to_the_end(server: EmbeddedPostgres) -> None:
    seen: list[int] = []
    rows = 6 * ORDERS_PER_CHUNK
    lineorder.fill(server.dsn(), rows, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == rows
    assert len(seen) > 1


def test_no_rows_are_refused(server: EmbeddedPostgres) -> None:
    with pytest.raises(ValueError, match="rows must be positive, not 0"):
        lineorder.fill(server.dsn(), 0)


def test_prices_are_related_as_in_ssb(server: EmbeddedPostgres) -> None:
    broken = """
        SELECT count(*) FILTER (WHERE lo_revenue <> lo_extendedprice::int8 * (100 - lo_discount) / 100),
               count(*) FILTER (WHERE lo_extendedprice % lo_quantity <> 0),
               count(*) FILTER (WHERE lo_supplycost <> lo_extendedprice / lo_quantity * 6 / 10),
               count(*) FILTER (WHERE lo_ordtotalprice <> total)
        FROM (SELECT *, sum(lo_revenue::int8 * (100 + lo_tax) / 100) OVER (PARTITION BY lo_orderkey) AS total
              FROM lineorder) AS lines
    """
    assert row(server, broken) == (0, 0, 0, 0)


def test_values_are_in_range_and_varied(server: EmbeddedPostgres) -> None:
    facts = """
        SELECT min(lo_quantity), max(lo_quantity), min(lo_discount), max(lo_discount), max(lo_tax),
               count(DISTINCT lo_orderpriority), count(DISTINCT lo_shipmode), max(lo_linenumber),
               count(*) FILTER (WHERE lo_custkey % 3 = 0),
               count(*) FILTER (WHERE to_date(lo_commitdate::text, 'YYYYMMDD')
                                      - to_date(lo_orderdate::text, 'YYYYMMDD') NOT BETWEEN 30 AND 90)
        FROM lineorder
    """
    assert row(server, facts) == (1, 50, 0, 10, 8, 5, 7, 7, 0, 0)
    assert row(server, "SELECT count(DISTINCT (lo_orderkey, lo_linenumber)) FROM lineorder") == (ROWS,)


def test_table_is_vacuumed_and_analysed(server: EmbeddedPostgres) -> None:
    facts = "SELECT reltuples::int8, relallvisible = relpages FROM pg_class WHERE oid = 'lineorder'::regclass"
    assert row(server, facts) == (ROWS, True)
