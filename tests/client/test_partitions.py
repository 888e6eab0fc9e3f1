"""Partitions: picklable, repeatable, retried elsewhere; and an end that is an error of its own."""

from __future__ import annotations

import pickle
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import flight

import pgflight
from demo.postgres import EmbeddedPostgres
from tests.helpers.server import ServerProcess

ROWS = 60_000
TOTAL = ROWS * (ROWS + 1) // 2


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "signing"
    file.write_text("shared by the replicas")
    return file


@pytest.fixture(scope="module")
def table(postgres: EmbeddedPostgres) -> Iterator[str]:
    with postgres.connect() as connection:
        connection.execute("create schema dealt; create table dealt.t (id int8 not null, pad text)")
        connection.execute(f"insert into dealt.t select g, repeat('x', 100) from generate_series(1, {ROWS}) g")
        yield "dealt.t"
        connection.execute("drop schema dealt cascade")


@pytest.fixture
def replicas(postgres: EmbeddedPostgres, key: Path) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    with ServerProcess(postgres.dsn(), "--signing-key-file", str(key)) as one:
        flags = ("--signing-key-file", str(key), "--replicas", one.uri + ",grpc://127.0.0.1:1")
        with ServerProcess(postgres.dsn(), *flags) as two:
            yield one, two


def total(partition: pgflight.Partition) -> int:
    return sum(partition.read()["id"].to_pylist())


def test_they_add_up_in_other_processes(replicas: tuple[ServerProcess, ServerProcess], table: str) -> None:
    """One of the two locations never answers: the other one serves."""
    with pgflight.connect(replicas[1].uri) as client, client.plan(table, partitions=4) as plan:
        assert len(plan.partitions) == plan.facts["endpoints"] == 4
        assert {len(partition.locations) for partition in plan.partitions} == {2}
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            assert sum(pool.map(total, plan.partitions)) == TOTAL
        assert sum(total(partition) for partition in plan.partitions) == TOTAL
        batches = [batch for partition in plan.partitions for batch in partition.batches()]
        assert sum(batch.num_rows for batch in batches) == ROWS


def test_columns_and_conditions(replicas: tuple[ServerProcess, ServerProcess], table: str) -> None:
    with pgflight.connect(replicas[0].uri) as client:
        with client.plan(table, columns=["id"], where="id > 100", partitions=3) as plan:
            assert plan.schema.names == ["id"]
            assert sum(total(partition) for partition in plan.partitions) == TOTAL - 5050
        with client.plan("select 7::int8 as id") as whole:
            assert whole.expires_at is None
            assert [total(partition) for partition in whole.partitions] == [7]


def test_the_end_of_the_snapshot(replicas: tuple[ServerProcess, ServerProcess], table: str) -> None:
    with pgflight.connect(replicas[0].uri) as client:
        plan = client.plan(table, partitions=3)
        before = plan.expires_at
        plan.renew()
        assert before is not None
        assert plan.expires_at is not None
        assert plan.expires_at >= before
        plan.cancel()
        with pytest.raises(pgflight.SnapshotEndedError, match="plan the read again"):
            plan.partitions[0].read()
        with pytest.raises(pgflight.SnapshotEndedError):
            next(plan.partitions[0].batches())
        with pytest.raises(pgflight.SnapshotEndedError):
            plan.renew()
        assert sum(total(partition) for partition in client.plan(table).partitions) == TOTAL


def test_a_server_that_dies_is_replaced(postgres: EmbeddedPostgres, key: Path, table: str) -> None:
    """The first location is killed between two partitions; the second has joined and serves the rest."""
    flags = ("--signing-key-file", str(key))
    with ServerProcess(postgres.dsn(), *flags) as survivor, ServerProcess(postgres.dsn(), *flags) as planner:
        with pgflight.connect(planner.uri) as client:
            plan = client.plan(table, partitions=4)
            both = [
                pgflight.Partition(part.ticket, (planner.uri, survivor.uri), part.schema, part.settings)
                for part in plan.partitions
            ]
            turned = pgflight.Partition(both[0].ticket, (survivor.uri,), both[0].schema, both[0].settings)
            found = total(turned)
            planner.signal(signal.SIGKILL)
            planner.wait()
            assert found + sum(total(partition) for partition in both[1:]) == TOTAL


def test_other_errors_are_not_retried(replicas: tuple[ServerProcess, ServerProcess], table: str) -> None:
    with pgflight.connect(replicas[0].uri) as client:
        (partition,) = client.plan("select date 'infinity' + g * 0 as d from generate_series(1, 3) g").partitions
        with pytest.raises(pa.ArrowInvalid, match="infinite"):
            partition.read()
        forged = pgflight.Partition(partition.ticket[:-2] + b"xx", (), partition.schema, partition.settings)
        with pytest.raises(flight.FlightUnauthorizedError):
            forged.read()


def test_secrets_travel_but_do_not_show(postgres: EmbeddedPostgres, table: str) -> None:
    with ServerProcess(postgres.dsn(), environment={"PGFLIGHT_AUTH_TOKEN": "hidden"}) as server:
        with pgflight.connect(server.uri, token="hidden") as client, client.plan(table, partitions=2) as plan:
            assert "hidden" not in repr(plan) + repr(plan.partitions)
            again = [pickle.loads(pickle.dumps(partition)) for partition in plan.partitions]
            assert sum(total(partition) for partition in again) == TOTAL
