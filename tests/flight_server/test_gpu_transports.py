"""Transports that end in GPU memory, simulated: the same rows, and counters that prove where the bytes went."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

import pgflight
from demo.postgres import EmbeddedPostgres
from demo.synthetic import NULLS
from pgflight.client import Client
from tests.helpers.server import ServerProcess

ROWS = 60
FLAGS = (
    "--decode", "gpu", "--block-mib", "1", "--pinned-blocks", "16", "--collect-mib", "4",
    "--lease-memory-mib", "8", "--lease-slab-mib", "4", "--lease-client-mib", "8",
)  # fmt: skip


@pytest.fixture(scope="module")
def gpu_server(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    NULLS.fill(postgres.dsn(), ROWS)
    spool: Path = tmp_path_factory.mktemp("gpu") / "spool"
    with ServerProcess(
        postgres.dsn(),
        *FLAGS,
        "--spool-dir",
        str(spool),
        environment={"NUMBA_ENABLE_CUDASIM": "1"},
        module="tests.flight_server.simulated_gpu",
    ) as process:
        yield process


@pytest.fixture
def client(gpu_server: ServerProcess) -> Iterator[Client]:
    gpu_server.forget()
    with pgflight.connect(gpu_server.uri) as connected:
        yield connected


@pytest.fixture(scope="module")
def expected(gpu_server: ServerProcess) -> pa.Table:
    with pgflight.connect(gpu_server.uri) as connected:
        table = connected.table(NULLS.table, decode="cpu", streams=1).to_arrow()
    gpu_server.wait_for("read", 60.0)
    return table


@pytest.mark.parametrize(
    ("transport", "framing"),
    [("pinned", "copy"), ("single", "extended"), ("buffered", "copy"), ("chunked", "extended"), ("gds", "copy")],
)
def test_the_rows_are_the_same_and_the_bytes_went_there(
    gpu_server: ServerProcess, client: Client, expected: pa.Table, transport: str, framing: str
) -> None:
    table = client.table(NULLS.table, transport=transport, framing=framing, streams=1).to_arrow()
    line = gpu_server.wait_for("read", 60.0, transport=transport, framing=framing)
    assert table.equals(expected)
    moved, received = line["moved"], line["wire_bytes"]
    assert moved["device_bytes"] >= received > 10_000
    if transport in ("single", "buffered"):
        assert moved["device_copies"] == 1, "one buffer, one copy"
    if transport == "chunked":
        assert (moved["device_copies"], moved["device_bytes"]) == (moved["chunks"], received)
        assert "copied_bytes" not in moved, "no copy within the host"
        assert moved["allocations"] == 1
    if transport == "gds":
        assert moved["written_bytes"] == moved["read_bytes"] == received


def test_files_are_refused_with_the_way_out(client: Client) -> None:
    with pytest.raises(pa.ArrowInvalid, match=r"file_dsn"):
        client.table(NULLS.table, transport="file").to_arrow()


@pytest.mark.parametrize("transport", ["pinned", "single", "buffered", "chunked", "gds"])
def test_nested_columns_on_every_way(client: Client, transport: str) -> None:
    sql = "select array[g, null] as a, int4range(g, 9) as r, array[g, 2]::vector(2) as v from generate_series(1, 8) g"
    expected = client.query(sql, decode="cpu").to_arrow()
    assert client.query(sql, decode="gpu", transport=transport).to_arrow().equals(expected)
