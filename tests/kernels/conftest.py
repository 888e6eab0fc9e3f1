"""Fixtures of the decoder's tests."""

from __future__ import annotations

import gc
import importlib
import os
from collections.abc import Iterator

import pytest

from demo.postgres import EmbeddedPostgres
from transport.memory import RegionPool
from transport.pool import ConnectionPool


@pytest.fixture(autouse=True)
def twin(monkeypatch: pytest.MonkeyPatch) -> str:
    """The twin that decodes: PGFLIGHT_TEST_TWIN=cuda chooses the other one, for all tests that do not name theirs."""
    chosen = os.environ.get("PGFLIGHT_TEST_TWIN", "host")
    if chosen == "cuda":
        importlib.import_module("tests.kernels.cuda_twin").take_over(monkeypatch)
    return chosen


@pytest.fixture(scope="session")
def pool(postgres: EmbeddedPostgres) -> Iterator[ConnectionPool]:
    """One pool for all: these tests are about values, not about connections."""
    connections = ConnectionPool(postgres.dsn())
    yield connections
    connections.close()


@pytest.fixture
def memory() -> Iterator[RegionPool]:
    """A pool of memory from which nothing may be missing at the end of the test."""
    pool = RegionPool(512 << 20)
    yield pool
    # What pytest.raises holds is a cycle: exception, traceback, the test's own frame.  A full collection is slow.
    for generation in (0, 1, 2):
        if pool.lent_bytes:
            gc.collect(generation)
    assert pool.lent_bytes == 0
