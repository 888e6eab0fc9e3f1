"""Every transport gives the same rows, and its counters prove that it did what its name says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import flight

from demo.postgres import EmbeddedPostgres
from tests.helpers.server import ServerProcess
from transport.modes.moving import TRANSPORTS

ROWS = 120_000
MIB = 1 << 20
HERE = tuple(name for name in TRANSPORTS if name != "file")
LIKE_THE_END = "'\\x5a0000000549'::bytea"
"""ReadyForQuery, as far as one can tell from a few bytes."""


def read(client: flight.FlightClient, what: dict[str, Any], **options: object) -> pa.Table:
    command = what | {"options": options}
    return client.do_get(flight.Ticket(json.dumps(command).encode())).read_all()


@pytest.fixture(scope="module")
def tables(postgres: EmbeddedPostgres) -> Iterator[None]:
    with postgres.connect() as connection:
        connection.execute(
            f"""
            create schema moved;
            create table moved.t as select g as id, 'n' || g as name, g / 8.0 as n, case when g % 3 = 0 then g end as a,
                repeat('x', 90) as pad from generate_series(1, {ROWS}) g;
            create table moved.empty (a int);
            create table moved.traps as select g as id, {LIKE_THE_END} as b from generate_series(1, 50000) g;
            """
        )
        yield
        connection.execute("drop schema moved cascade")


@pytest.fixture(scope="module")
def spool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("moved") / "spool"


@pytest.fixture(scope="module")
def server(postgres: EmbeddedPostgres, tables: None, spool: Path) -> Iterator[ServerProcess]:
    with ServerProcess(postgres.dsn(), "--spool-dir", str(spool), "--collect-mib", "64") as process:
        yield process


@pytest.fixture
def client(server: ServerProcess) -> Iterator[flight.FlightClient]:
    server.forget()
    with flight.connect(server.uri) as connected:
        yield connected


@pytest.fixture(scope="module")
def expected(server: ServerProcess) -> pa.Table:
    with flight.connect(server.uri) as connected:
        table = read(connected, {"table": "moved.t"}, streams=1)
    server.wait_for("read")
    return table


@pytest.mark.parametrize("options", [{"streams": 1}, {"streams": 3}, {"streams": 1, "framing": "copy"}], ids=str)
@pytest.mark.parametrize("transport", HERE)
def test_the_rows_are_the_same(
    server: ServerProcess,
    client: flight.FlightClient,
    expected: pa.Table,
    transport: str,
    options: dict[str, object],
) -> None:
    table = read(client, {"table": "moved.t"}, transport=transport, **options)
    line = server.wait_for("read")
    assert (line["transport"], line["outcome"]) == (transport, "complete")
    assert table.schema.equals(expected.schema, check_metadata=True)
    assert table.sort_by("id").equals(expected.sort_by("id"))


@pytest.mark.parametrize("transport", HERE)
def test_counters_prove_the_name(server: ServerProcess, client: flight.FlightClient, transport: str) -> None:
    read(client, {"table": "moved.t"}, transport=transport, streams=1)
    line = server.wait_for("read")
    moved, received = line["moved"], line["wire_bytes"]
    assert moved["received_bytes"] == received > 14 * MIB
    assert moved["chunks"] > 1
    chunks = -(-received // MIB)
    if transport == "pinned":
        assert moved["allocations"] == 1, "one block, again and again"
        assert moved.get("copied_bytes", 0) < received / 100, "decoded where it was received"
    elif transport == "single":
        assert (moved["copies"], moved["copied_bytes"]) == (1, received)
        assert moved["allocations"] == chunks + 1
    elif transport == "buffered":
        assert moved["allocations"] == moved["copies"] + 1, "every larger buffer is filled by one copy"
        assert moved["copies"] == (chunks - 1).bit_length()
        assert received / 2 <= moved["copied_bytes"] < 2 * received
    elif transport == "chunked":
        assert (moved["copies"], moved["copied_bytes"]) == (moved["chunks"], received)
        assert moved["allocations"] == 1
    else:
        assert moved["written_bytes"] == moved["read_bytes"] == received
    files = {"written_bytes", "read_bytes"} & moved.keys()
    assert bool(files) == (transport == "gds")
    assert "device_bytes" not in moved


@pytest.mark.parametrize("transport", HERE)
def test_values_that_look_like_the_end_end_nothing(client: flight.FlightClient, transport: str) -> None:
    table = read(client, {"table": "moved.traps"}, transport=transport, streams=1)
    assert table["id"].to_pylist() == list(range(1, 50_001))
    assert read(client, {"table": "moved.empty"}, transport=transport).num_rows == 0


@pytest.mark.parametrize("transport", HERE)
def test_a_failure_in_the_middle_is_postgresqls(client: flight.FlightClient, spool: Path, transport: str) -> None:
    statement = {"sql": "select 1 / (90000 - g) from generate_series(1, 100000) g"}
    with pytest.raises(pa.ArrowInvalid, match="division by zero"):
        read(client, statement, transport=transport)
    assert read(client, {"sql": "select 1 as a"}, transport=transport).to_pylist() == [{"a": 1}]
    assert list(spool.rglob("*.wire")) == []


@pytest.mark.parametrize("transport", ["single", "buffered", "chunked"])
def test_what_is_too_large_is_refused_and_the_way_out_named(client: flight.FlightClient, transport: str) -> None:
    large = {"sql": "select repeat('x', 1000) from generate_series(1, 70000) g"}
    with pytest.raises(flight.FlightUnavailableError, match=f"{transport}.*64 MiB.*collect_mib.*transport=pinned"):
        read(client, large, transport=transport)
    assert read(client, large, transport="pinned").num_rows == 70_000
    assert read(client, {"table": "moved.empty"}, transport=transport).num_rows == 0


@pytest.mark.parametrize("transport", HERE)
def test_what_is_kept_moves_by_every_transport(
    server: ServerProcess, client: flight.FlightClient, expected: pa.Table, transport: str
) -> None:
    client.do_action(flight.Action("spool.drop", b""))
    for reader in ("tcp", "spool"):
        table = read(client, {"table": "moved.t"}, transport=transport, streams=1, max_age_s=60)
        line = server.wait_for("read")
        assert (line["reader"], line["transport"]) == (reader, transport)
        assert table.equals(expected)
    assert line["moved"]["read_bytes"] == line["wire_bytes"]
    assert len(list(client.do_action(flight.Action("spool.drop", b"")))) == 1


def test_a_stopped_read_leaves_nothing(server: ServerProcess, client: flight.FlightClient, spool: Path) -> None:
    endless = {"sql": "select generate_series(1, 1000000000)", "options": {"transport": "gds"}}
    reader = client.do_get(flight.Ticket(json.dumps(endless).encode()))
    reader.read_chunk()
    reader.cancel()
    server.wait_for("read")
    assert list(spool.rglob("*.wire")) == []


def test_without_a_spool_there_is_no_gds(postgres: EmbeddedPostgres, tables: None) -> None:
    with ServerProcess(postgres.dsn()) as server, flight.connect(server.uri) as client:
        with pytest.raises(pa.ArrowInvalid, match=r"gds.*spool_dir"):
            read(client, {"table": "moved.t"}, transport="gds")


@pytest.mark.parametrize("transport", HERE)
def test_stages_add_up(server: ServerProcess, client: flight.FlightClient, transport: str) -> None:
    read(client, {"table": "moved.t"}, transport=transport, streams=1)
    line = server.wait_for("read")
    stages = line["stages"]
    assert {"receive", "scan", "decode", "hand out"} <= stages.keys()
    assert 0 < sum(stage["wall_s"] for stage in stages.values()) <= line["seconds"]
    assert all(stage["cpu_s"] >= 0 for stage in stages.values())


@pytest.mark.parametrize("transport", HERE)
def test_the_last_batch_says_what_was_done(
    server: ServerProcess, client: flight.FlightClient, transport: str
) -> None:
    command = {"table": "moved.t", "options": {"transport": transport, "streams": 1}}
    chunks = list(client.do_get(flight.Ticket(json.dumps(command).encode())))
    line = server.wait_for("read")
    if transport == "pinned":
        assert all(chunk.app_metadata is None for chunk in chunks)
        return
    assert all(chunk.app_metadata is None for chunk in chunks[:-1])
    facts = json.loads(chunks[-1].app_metadata.to_pybytes())
    assert (chunks[-1].data.num_rows, facts["rows"], facts["transport"]) == (0, ROWS, transport)
    assert facts["moved"] == line["moved"]
    assert facts["stages"] == line["stages"]
