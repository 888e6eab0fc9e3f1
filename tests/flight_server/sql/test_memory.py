"""What the catalog said is said again only while nothing was committed; read by the pipeline, counted there."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from demo.postgres import EmbeddedPostgres
from flight_server.reading.decoding import Decodings, HostDecoding
from flight_server.reading.pipeline import Pipeline
from flight_server.reading.sessions import Limits, Sessions
from flight_server.sql import queries
from flight_server.sql.memory import CatalogMemory
from kernels.backend import select_backend
from transport.memory import RegionPool
from transport.opening import SessionOptions
from transport.pool import ConnectionPool
from transport.session import Session

TABLES = (None, "scratch", None, None)


class Counted(Pipeline):
    """A pipeline that counts its reads."""

    reads = 0

    def read(self, *args, **options):
        self.reads += 1
        return super().read(*args, **options)


@pytest.fixture
def pipeline(postgres: EmbeddedPostgres) -> Iterator[Counted]:
    host = HostDecoding(select_backend("cpu"), RegionPool(64 << 20))
    decodings = Decodings(host, None, prefer_gpu=False, why="")
    pool = ConnectionPool(postgres.dsn())
    opened = Counted(Sessions(pool, Limits(), decodings), decodings)
    yield opened
    opened.close()
    pool.close()


def tables(memory: CatalogMemory) -> list[str]:
    return memory.query(queries.TABLES, TABLES, lambda: None)["relname"].to_pylist()


def test_asked_again_it_is_remembered(pipeline: Counted, shop: psycopg.Connection) -> None:
    memory = CatalogMemory(pipeline)
    first = tables(memory)
    assert "goods" in first
    for _ in range(5):
        assert tables(memory) == first
    remembered = pipeline.reads
    assert remembered < 3  # autovacuum, too, commits
    assert memory.query(queries.TABLES, (None, "nowhere", None, None), lambda: None).num_rows == 0
    assert pipeline.reads == remembered + 1


@pytest.mark.parametrize(
    ("ddl", "gone", "come"),
    [
        ("create table scratch.a_new_one ()", set(), {"a_new_one"}),
        ("drop table scratch.a_b", {"a_b"}, set()),
        ("alter table scratch.a_b rename to b_a", {"a_b"}, {"b_a"}),
        ("revoke select on scratch.a_b from pgflight", {"a_b"}, set()),
    ],
)
def test_ddl_is_seen_at_once(
    pipeline: Counted, shop: psycopg.Connection, ddl: str, gone: set[str], come: set[str]
) -> None:
    memory = CatalogMemory(pipeline)
    before = set(tables(memory))
    with shop.transaction():
        shop.execute(ddl)
        assert set(tables(memory)) == before  # it is not committed
        assert pipeline.reads == 1
    assert set(tables(memory)) == before - gone | come


def test_what_is_rolled_back_was_never_there(pipeline: Counted, shop: psycopg.Connection) -> None:
    memory = CatalogMemory(pipeline)
    before = tables(memory)
    with shop.transaction(force_rollback=True):
        shop.execute("create table scratch.a_new_one ()")
    assert tables(memory) == before


def test_older_transactions_may_end_last(
    pipeline: Counted, postgres: EmbeddedPostgres, shop: psycopg.Connection
) -> None:
    """Each commit counts, whatever began before or after it."""
    memory = CatalogMemory(pipeline)
    with postgres.connect() as first, postgres.connect() as second, postgres.connect() as third:
        for number, connection in enumerate((first, second, third)):
            connection.autocommit = False
            connection.execute(f"create table scratch.new_{number} ()")
        before = set(tables(memory))
        for number, connection in ((2, third), (0, first), (1, second)):
            connection.commit()
            before |= {f"new_{number}"}
            assert set(tables(memory)) == before


def test_settings_that_change_how_types_are_written(pipeline: Counted, postgres: EmbeddedPostgres) -> None:
    usual, quoting = pipeline.sessions.pool, ConnectionPool(postgres.dsn(options="-c quote_all_identifiers=on"))
    moments = []
    for pool in (usual, usual, quoting):
        with Session(pool, SessionOptions()) as session:
            moments.append(session.moment())
    quoting.close()
    assert moments[0] == moments[1] != moments[2]
