"""Batches that are lent: the server in its process, the client here; on a GPU, and simulated in mapped files."""

from __future__ import annotations

import gc
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pyarrow as pa
import pytest
from pyarrow import flight

import pgflight
from demo.postgres import EmbeddedPostgres
from demo.synthetic import NULLS
from kernels.backend import gpus_present
from pgflight.client import Client
from pgflight.device import LeaseConnections, LeaseError
from tests.helpers.server import ServerProcess
from tests.helpers.waiting import eventually
from tests.transport.device.reader_process import HostReaderCuda

ROWS = {"simulated": 60, "gpu": 200_000}
FLAGS = (
    "--decode", "gpu", "--block-mib", "1", "--pinned-blocks", "16",
    "--lease-memory-mib", "8", "--lease-slab-mib", "4", "--lease-client-mib", "8",
)  # fmt: skip


WORLDS = ["simulated", *([pytest.param("gpu", marks=pytest.mark.gpu)] if gpus_present() else [])]
READER = """
import random, sys, time
import pgflight
from pgflight.device import LeaseConnections
client = pgflight.connect(sys.argv[1])
if sys.argv[3] == "simulated":
    from tests.transport.device.reader_process import HostReaderCuda
    client._leases = LeaseConnections(HostReaderCuda)
held = []
for batch in client.query(sys.argv[2], output="cuda-ipc", streams=1).device_batches():
    held.append(batch)
    print(batch.num_rows, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module", params=WORLDS)
def where(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def gpu_server(postgres: EmbeddedPostgres, where: str) -> Iterator[ServerProcess]:
    NULLS.fill(postgres.dsn(), ROWS[where])
    if where == "gpu":
        with ServerProcess(postgres.dsn(), *FLAGS) as process:
            yield process
        return
    environment = {"NUMBA_ENABLE_CUDASIM": "1"}
    with ServerProcess(
        postgres.dsn(), *FLAGS, environment=environment, module="tests.flight_server.simulated_gpu"
    ) as process:
        yield process


@pytest.fixture
def gpu_client(gpu_server: ServerProcess, where: str) -> Iterator[Client]:
    with pgflight.connect(gpu_server.uri) as connected:
        if where == "simulated":
            connected._leases = LeaseConnections(HostReaderCuda)
        yield connected


def held(client: Client) -> tuple[int, int, int]:
    gpu = client.info()["gpu"]
    return gpu["lease_clients"], gpu["leases"], gpu["leased_bytes"]


@pytest.mark.parametrize("options", [{"streams": 1}, {"streams": 2, "ordered": True}], ids=str)
def test_the_values_are_those_of_host_batches(gpu_client: Client, where: str, options: dict[str, object]) -> None:
    expected = gpu_client.table(NULLS.table, decode="cpu", **options).to_arrow()
    reader = gpu_client.table(NULLS.table, output="cuda-ipc", **options)
    batches = [batch.to_arrow() for batch in reader.device_batches()]
    assert sum(batch.num_rows for batch in batches) == reader.progress.rows == ROWS[where]
    assert pa.Table.from_batches(batches).equals(expected)


def test_in_order_by_one_stream(gpu_client: Client) -> None:
    """Others would read ahead into the memory that the first one waits for."""
    facts = gpu_client.explain(NULLS.table, output="cuda-ipc", streams=2, ordered=True)
    assert (facts["streams"], facts["parts"]) == (1, 1)


def test_collecting_copies_to_the_host(gpu_client: Client) -> None:
    sql = "select g, 'text ' || g as t from generate_series(1, 20) g"
    assert gpu_client.query(sql, output="cuda-ipc").to_arrow().equals(gpu_client.query(sql).to_arrow())


def test_memory_comes_back(gpu_client: Client) -> None:
    batches = list(gpu_client.query("select 1 as a", output="cuda-ipc").device_batches())
    assert held(gpu_client)[:2] == (1, 1)
    del batches
    gc.collect()
    eventually(lambda: held(gpu_client)[1:] == (0, 0))
    gpu_client._leases.close()
    eventually(lambda: held(gpu_client) == (0, 0, 0))


def test_no_rows_no_leases(gpu_client: Client) -> None:
    reader = gpu_client.query("select 1 as a where false", output="cuda-ipc")
    assert list(reader.device_batches()) == []


def test_a_read_that_is_left_early_leaves_nothing(gpu_client: Client) -> None:
    sql = "select g as a, repeat('x', 9000) || pg_sleep(1)::text as t from generate_series(1, 60) g"
    batches = gpu_client.query(sql, output="cuda-ipc").device_batches()
    first = next(batches)
    batches.close()
    assert first.to_arrow().num_rows > 0
    del first
    eventually(lambda: held(gpu_client)[1:] == (0, 0))


def test_errors_of_the_rows_arrive(gpu_client: Client) -> None:
    sql = "select case when g = 7 then 'infinity'::date else '2024-01-01' end as day from generate_series(1, 9) g"
    with pytest.raises(pa.ArrowInvalid, match=r"day.*row 6|row 6.*day"):
        list(gpu_client.query(sql, output="cuda-ipc").device_batches())


NESTED = """select case when g % 3 <> 0 then array[g, null, 3] end as numbers, array['é', null, g::text] as texts,
    row(g, 'x', array[1.5::float8])::lent.part as part, array[row(g, null, '{}')::lent.part, null] as parts,
    int4range(g, g + 1) as span, int4multirange(int4range(1, g)) as spans, array[g, 2, 3]::vector(3) as embedding,
    lent.hstore('key', g::text) as pairs, array[md5(g::text)::uuid, null] as ids, 7 as plain, g::text as last
    from generate_series(1, 40) g"""


@pytest.fixture
def part_type(postgres: EmbeddedPostgres) -> Iterator[None]:
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        connection.execute("create schema lent; create type lent.part as (i int4, t text, f float8[])")
        connection.execute("create extension hstore schema lent")
        yield
        connection.execute("drop schema lent cascade")


@pytest.mark.usefixtures("part_type")
def test_nested_columns(gpu_client: Client) -> None:
    """Wherever they are decoded, and on whichever way they come, they are the same."""
    expected = gpu_client.query(NESTED, decode="cpu").to_arrow()
    assert expected["parts"].to_pylist()[0] == [{"i": 1, "t": None, "f": []}, None]
    assert gpu_client.query(NESTED, decode="gpu").to_arrow().equals(expected)
    batches = list(gpu_client.query(NESTED, output="cuda-ipc").device_batches())
    assert pa.Table.from_batches([batch.to_arrow() for batch in batches]).equals(expected)
    elements = batches[0].column("numbers").children[0]
    assert elements.rows == len(expected["numbers"].chunk(0).values)
    assert batches[0].column("embedding").values.shape == (40, 3)


def test_errors_of_nested_columns_arrive(gpu_client: Client) -> None:
    sql = "select case when g = 7 then '[0:0]={1}'::int4[] end as a from generate_series(1, 9) g"
    for options in ({"decode": "gpu"}, {"output": "cuda-ipc"}):
        with pytest.raises(pa.ArrowInvalid, match=r"lower bound.*row 6.*'a'"):
            gpu_client.query(sql, **options).to_arrow()


def test_a_client_without_leases_is_refused(gpu_server: ServerProcess) -> None:
    command = json.dumps({"sql": "select 1 as a", "options": {"output": "cuda-ipc"}}).encode()
    with flight.connect(gpu_server.uri) as raw:
        with pytest.raises(pa.ArrowInvalid, match="lease connection"):
            raw.do_get(flight.Ticket(command)).read_all()
        for said in (b"nonsense", b"0" * 32 + b".1"):
            options = flight.FlightCallOptions(headers=[(b"pgflight-lease", said)])
            with pytest.raises(pa.ArrowInvalid):
                raw.do_get(flight.Ticket(command), options).read_all()


def test_host_batches_are_not_device_batches(gpu_client: Client) -> None:
    with pytest.raises(ValueError, match="cuda-ipc"):
        gpu_client.query("select 1 as a").device_batches()


def test_decode_cpu_contradicts(gpu_client: Client) -> None:
    with pytest.raises(pa.ArrowInvalid, match="decode=cpu"):
        gpu_client.query("select 1 as a", output="cuda-ipc", decode="cpu")


def test_a_server_without_gpus_says_so(server: ServerProcess) -> None:
    with pgflight.connect(server.uri) as client, pytest.raises(pa.ArrowInvalid, match="decodes on the CPU"):
        client.query("select 1 as a", output="cuda-ipc")


@pytest.mark.timeout(500)
def test_clients_that_are_killed_leave_nothing(gpu_server: ServerProcess, gpu_client: Client, where: str) -> None:
    kills, rows, at_once = (2, 20, 1) if where == "simulated" else (200, 2_000_000, 12)
    sql = f"select g, 'text ' || g as t from generate_series(1, {rows}) g"
    assert len(list(gpu_client.query(sql, output="cuda-ipc").device_batches())) > 0  # made what is made once
    gpu_client._leases.close()
    eventually(lambda: held(gpu_client) == (0, 0, 0))
    base = gpu_client.info()["gpu"]
    size, descriptors = gpu_server.process.memory_info().rss, gpu_server.process.num_fds()
    command = [sys.executable, "-c", READER, gpu_server.uri, sql, where]

    def kill_one(turn: int) -> None:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
            assert reader.stdout.readline()
            time.sleep(random.Random(turn).random() / 10)  # somewhere in the read: there is nothing to wait for
            reader.kill()

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(kill_one, range(kills)))
    eventually(lambda: held(gpu_client) == (0, 0, 0))
    eventually(lambda: gpu_client.info()["gpu"]["quarantined_bytes"] == 0)
    assert gpu_client.info()["gpu"]["slab_bytes"] <= max(base["slab_bytes"], 8 << 20)
    eventually(lambda: gpu_server.process.num_fds() <= descriptors + 8)
    assert gpu_server.process.memory_info().rss < size + (256 << 20)


def test_a_released_batch_is_not_read(gpu_client: Client) -> None:
    (batch,) = gpu_client.query("select 1 as a", output="cuda-ipc").device_batches()
    with batch:
        assert batch.num_rows == 1
    with pytest.raises(LeaseError, match="released"):
        batch.to_arrow()
