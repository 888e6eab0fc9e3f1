"""Dask, Ray and Spark read one snapshot from two servers, with their real engines."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pgflight
from demo.postgres import EmbeddedPostgres
from tests.helpers.server import ServerProcess

ROWS = 200_000
FEW, MANY = ROWS, 20_000_000
TYPED = ("SnapshotEndedError", "plan the read again", "FlightUnavailableError", "Unavailable")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(600)]
Engine = Callable[[str, int], int]


def by_dask(uri: str, partitions: int) -> int:
    dask_reader = pytest.importorskip("pgflight.dask", reason="Dask is not installed")
    frame = dask_reader.read(uri, "engines.t", partitions=partitions, columns=["id"])
    return int(frame["id"].sum().compute(scheduler="threads"))


def by_ray(uri: str, partitions: int) -> int:
    ray_reader = pytest.importorskip("pgflight.ray", reason="Ray is not installed")
    return int(ray_reader.read(uri, "engines.t", partitions=partitions, columns=["id"]).sum("id"))


def by_spark(uri: str, partitions: int) -> int:
    spark_reader = pytest.importorskip("pgflight.spark", reason="Spark is not installed")
    session = spark_session()
    session.dataSource.register(spark_reader.PgflightDataSource)
    source = session.read.format("pgflight").option("uri", uri).option("query", "engines.t")
    frame = source.option("partitions", partitions).option("columns", "id").load()
    return int(frame.groupBy().sum("id").collect()[0][0])


def spark_session() -> Any:
    os.environ["PYSPARK_PYTHON"] = sys.executable  # else Spark takes the python3 of the path
    builder = (
        importlib.import_module("pyspark.sql")
        .SparkSession.builder.master("local[2,4]")
        .config("spark.ui.enabled", "false")
    )
    return builder.config("spark.sql.shuffle.partitions", "2").getOrCreate()


ENGINES: list[Engine] = [by_dask, by_ray, by_spark]


@pytest.fixture(scope="module", autouse=True)
def engines() -> Iterator[None]:
    """Start Ray small, and stop the engines at the end."""
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()
    spark_session().stop()


def fill(postgres: EmbeddedPostgres, rows: int) -> None:
    with postgres.connect() as connection:
        connection.execute("create schema if not exists engines; drop table if exists engines.t")
        connection.execute("create table engines.t (id int8 not null, pad text not null)")
        connection.execute(f"insert into engines.t select g, 'row ' || g from generate_series(1, {rows}) g")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "signing"
    file.write_text("shared by the replicas")
    return file


@pytest.fixture(scope="module")
def data(postgres: EmbeddedPostgres) -> Iterator[None]:
    fill(postgres, FEW)
    yield
    with postgres.connect() as connection:
        connection.execute("drop schema engines cascade")


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture
def replicas(postgres: EmbeddedPostgres, key: Path, data: None) -> Iterator[list[ServerProcess]]:
    uris = [f"grpc://127.0.0.1:{port}" for port in free_ports(2)]
    flags = ("--signing-key-file", str(key), "--replicas", ",".join(uris), "--max-connections", "24")
    with ServerProcess(postgres.dsn(), *flags, "--listen", uris[0]) as one:
        with ServerProcess(postgres.dsn(), *flags, "--listen", uris[1]) as two:
            yield [one, two]


@pytest.mark.parametrize("engine", ENGINES)
def test_sums(replicas: list[ServerProcess], engine: Engine) -> None:
    assert engine(replicas[0].uri, 6) == FEW * (FEW + 1) // 2
    for server in replicas:
        assert any(line.get("event") == "read" for line in server.log), "each replica must have served"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("victim", [0, 1])
def test_one_replica_is_killed(replicas: list[ServerProcess], engine: Engine, victim: int) -> None:
    """The read succeeds with the right sum, or ends with the typed error; nothing in between."""

    def kill() -> None:
        replicas[victim].wait_for("read", 60.0)
        replicas[victim].signal(signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        found = engine(replicas[0].uri, 12)
    except Exception as failure:
        assert any(text in repr(failure) + str(failure) for text in TYPED), failure
    else:
        assert found == FEW * (FEW + 1) // 2
    killer.join()


def test_types_in_spark(replicas: list[ServerProcess]) -> None:
    spark_reader = pytest.importorskip("pgflight.spark", reason="Spark is not installed")
    session = spark_session()
    session.dataSource.register(spark_reader.PgflightDataSource)

    def load(query: str) -> Any:
        source = session.read.format("pgflight").option("uri", replicas[0].uri)
        return source.option("query", query).load().collect()[0]

    row = load(
        "select 1::int2 a, 4000000000::oid b, 1.25::numeric(9, 3) c, 'x'::text d, '\\xff'::bytea e, true f, "
        "date '2024-02-29' g, timestamptz '2024-01-01 12:00+00' h, timestamp '2024-01-01 12:00' i, "
        "'{\"k\": 1}'::json j, time '12:34:56' k, null::float8 l"
    )
    assert (row.a, row.b, str(row.c), row.d, bytes(row.e), row.f) == (1, 4000000000, "1.250", "x", b"\xff", True)
    assert (str(row.g), row.i.isoformat(), row.j, row.k[:8], row.l) == (
        "2024-02-29", "2024-01-01T12:00:00", '{"k": 1}', "12:34:56", None,
    )  # fmt: skip
    with pytest.raises(Exception, match="cast it to text"):
        load("select interval '1 day' as gap")


def test_dask_keeps_types(replicas: list[ServerProcess]) -> None:
    dask_reader = pytest.importorskip("pgflight.dask", reason="Dask is not installed")
    sql = "select g::int8 as a, case when g > 1 then g::int8 end as b, 'x' || g as c from generate_series(1, 3) g"
    frame = dask_reader.read(replicas[0].uri, sql).compute()
    assert [str(kind) for kind in frame.dtypes] == ["int64[pyarrow]", "int64[pyarrow]", "string[pyarrow]"]
    assert frame["b"].isna().tolist() == [True, False, False]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_million_rows(
    postgres: EmbeddedPostgres, replicas: list[ServerProcess], record_property: pytest.RecordProperty
) -> None:
    fill(postgres, MANY)
    with pgflight.connect(replicas[0].uri) as client:
        assert client.plan("engines.t", partitions=16).cancel() is None
    for engine in ENGINES:
        began = time.monotonic()
        assert engine(replicas[0].uri, 16) == MANY * (MANY + 1) // 2
        seconds = time.monotonic() - began
        record_property(engine.__name__, seconds)
        print(f"{engine.__name__}: {MANY} rows in {seconds:.1f} s, {MANY / seconds / 1e6:.2f} M rows/s")
