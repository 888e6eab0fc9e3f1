"""Reads that are over give their memory back at once, not when Python's collector happens to run."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator

import pytest

from demo.postgres import EmbeddedPostgres
from flight_server.options import ReadOptions
from flight_server.reading.decoding import Decodings, HostDecoding
from flight_server.reading.pipeline import Pipeline
from flight_server.reading.sessions import Limits, Sessions
from flight_server.request import ReadRequest
from kernels.backend import select_backend
from kernels.errors import PgflightError
from transport.memory import RegionPool
from transport.pool import ConnectionPool, PoolOptions

STALL_S = 0.2
LONG = ReadRequest(sql="select g, repeat('x', 100) from generate_series(1, 1000000) g")
SHORT = ReadRequest(sql="select 1 as a")
IN_PARTS = ReadRequest(table=("in_parts",), options=ReadOptions(streams=2))


@pytest.fixture
def pipeline(postgres: EmbeddedPostgres, memory: RegionPool) -> Iterator[Pipeline]:
    """Reads, without a collector that could hide a cycle."""
    decodings = Decodings(HostDecoding(select_backend("cpu"), memory))
    pool = ConnectionPool(postgres.dsn(), PoolOptions(max_connections=4))
    made = Pipeline(Sessions(pool, Limits(stall_timeout_s=STALL_S), decodings), decodings)
    gc.collect()
    gc.disable()
    try:
        yield made
        assert memory.lent_bytes == 0
    finally:
        gc.enable()
        made.close()
        made.close_connections()


@pytest.fixture
def in_parts(postgres: EmbeddedPostgres) -> Iterator[None]:
    with postgres.connect() as connection:
        connection.execute("create table in_parts as select g, repeat('x', 500) from generate_series(1, 40000) g")
        connection.execute("analyze in_parts")
        yield
        connection.execute("drop table in_parts")


def test_whole(pipeline: Pipeline) -> None:
    _, batches = pipeline.read(SHORT, lambda: None)
    assert sum(batch.num_rows for batch in batches) == 1


@pytest.mark.usefixtures("in_parts")
@pytest.mark.parametrize("request_", [LONG, IN_PARTS], ids=["whole", "in parts"])
def test_abandoned(pipeline: Pipeline, request_: ReadRequest) -> None:
    _, batches = pipeline.read(request_, lambda: None)
    next(batches)
    batches.close()


def test_stalled(pipeline: Pipeline) -> None:
    _, batches = pipeline.read(LONG, lambda: None)
    next(batches)
    time.sleep(STALL_S * 5)  # this is what is tested: a client that does not read
    with pytest.raises(PgflightError, match="did not read"):
        _exhaust(batches)


def test_refused_by_postgres(pipeline: Pipeline) -> None:
    failing = ReadRequest(sql="select 1 / (g - 500000) from generate_series(1, 1000000) g")
    _, batches = pipeline.read(failing, lambda: None)
    with pytest.raises(PgflightError, match="division by zero"):
        _exhaust(batches)


def _exhaust(batches: Iterator[object]) -> None:
    for _ in batches:
        pass
