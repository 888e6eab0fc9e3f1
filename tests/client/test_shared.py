"""Batches in shared memory: the same values, no slot reused under a reader, and no memory but what was offered."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pyarrow as pa
import pytest
from pyarrow import flight

import pgflight
from pgflight.connection import READ_OPTIONS
from pgflight.shared import MOST_HELD, SHARED_HEADER, SLOTS, STATES_AT, TOLD, SharedMemory
from tests.helpers.server import ServerProcess
from tests.helpers.waiting import eventually
from transport import shared

ROWS = 300_000
OPTIONS = {"streams": 1, "batch_bytes": 1 << 20}


@pytest.fixture(scope="module")
def table(postgres) -> Iterator[str]:
    """Some 30 batches, with all that Arrow has: offsets, bitmaps, decimals, children."""
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        connection.execute("drop table if exists shared_batches")
        connection.execute(
            f"create table shared_batches as select g as id, (g / 7.0)::numeric(15, 2) as price, "
            f"repeat('x', g % 50) as name, case when g % 3 = 0 then null else g % 2 = 0 end as even, "
            f"array[g, null, g + 1] as around from generate_series(1, {ROWS}) g"
        )
        yield "shared_batches"
        connection.execute("drop table shared_batches")


def told_of(server: ServerProcess, table: str, offer: str, **options: object) -> list[int | None]:
    """Read with an offer of memory; return the slot of each batch that was left there, None for one that came."""
    asked = {SHARED_HEADER: offer, "x-pgflight-streams": "1"}
    asked |= {f"x-pgflight-{name}": str(value) for name, value in options.items()}
    headers = [(name.encode(), value.encode()) for name, value in asked.items()]
    with flight.connect(server.uri) as client:
        ticket = flight.Ticket(f'{{"table": "{table}"}}')
        chunks = list(client.do_get(ticket, flight.FlightCallOptions(headers=headers)))
    slots = [TOLD.unpack(chunk.app_metadata)[1] if chunk.app_metadata else None for chunk in chunks]
    sent = sum(chunk.data.num_rows for chunk in chunks)
    assert (sent == ROWS) == (set(slots) == {None})
    return slots


def offer_of(memory: SharedMemory) -> str:
    return memory.headers[SHARED_HEADER]


def test_the_same_values(server: ServerProcess, table: str) -> None:
    with pgflight.connect(server.uri) as here, pgflight.connect(server.uri, share_memory=False) as sent:
        wanted = sent.query(table, **OPTIONS).to_arrow()
        assert wanted.num_rows == ROWS
        assert here.query(table, **OPTIONS).to_arrow().equals(wanted)
        reader = here.query(table, **OPTIONS)
        batches = list(reader)  # holds them all: most are copies
        assert pa.Table.from_batches(batches, reader.schema).equals(wanted)
        assert reader.progress.rows == ROWS
        assert reader.progress.bytes > 8 * ROWS
        rows = 0
        for batch in here.query(table, **OPTIONS):  # holds one at a time: none is
            assert batch.equals(wanted.slice(rows, batch.num_rows).combine_chunks().to_batches()[0])
            batch.validate(full=True)
            rows += batch.num_rows
        assert rows == ROWS


def test_batches_are_left_in_memory_until_all_slots_are_lent(server: ServerProcess, table: str) -> None:
    memory = SharedMemory(READ_OPTIONS)
    slots = told_of(server, table, offer_of(memory))
    assert slots[:SLOTS] == list(range(SLOTS))
    assert set(slots[SLOTS:]) == {None}
    assert not memory.is_usable


def test_small_and_large_batches_are_sent(server: ServerProcess, table: str) -> None:
    assert set(told_of(server, table, offer_of(SharedMemory(READ_OPTIONS)), batch_bytes=65536)) == {None}
    large = told_of(server, table, offer_of(SharedMemory(READ_OPTIONS)), batch_bytes=16 << 20)
    assert None in large


def test_compressed_batches_are_sent(server: ServerProcess, table: str) -> None:
    assert set(told_of(server, table, offer_of(SharedMemory(READ_OPTIONS)), compression="zstd")) == {None}


def test_slots_come_back_with_the_last_buffer(server: ServerProcess, table: str) -> None:
    with pgflight.connect(server.uri) as client:
        batches = iter(client.query(table, **OPTIONS))
        column = next(batches).column("name")
        wanted = column.to_pylist()
        assert sum(batch.num_rows for batch in batches) > 0
        assert column.to_pylist() == wanted
        (memory,) = client._memories._idle
        states = memory._memory[STATES_AT : STATES_AT + SLOTS]
        assert states.count(1) == 1
        assert len(memory._held) == 1
        del column
        assert memory._memory[STATES_AT : STATES_AT + SLOTS].count(1) == 0
        assert [batch.num_rows > 0 for batch in client.query(table, **OPTIONS)]
        assert client._memories._idle == [memory]
        assert 512 * os.fstat(memory._descriptor).st_blocks < 1 << 20  # idle memory takes no room


def test_memory_of_a_stopped_read_is_not_used_again(server: ServerProcess, table: str) -> None:
    with pgflight.connect(server.uri) as client:
        with client.query(table, **OPTIONS) as reader:
            first = next(iter(reader))
        assert client._memories._idle == []
        assert first.num_rows > 0
        first.validate(full=True)
        assert client.query(table, **OPTIONS).to_arrow().num_rows == ROWS


def test_a_forked_process_keeps_what_it_has(server: ServerProcess, table: str) -> None:
    """It sees the parent's memory: what was held when it was made is never written again."""
    with pgflight.connect(server.uri) as client:
        batches = iter(client.query(table, **OPTIONS))
        held = next(batches)
        wanted = held.to_pydict()
        told, tell = os.pipe()
        ready, go = os.pipe()
        child = os.fork()
        if child == 0:
            os.read(ready, 1)
            os.write(tell, b"y" if held.to_pydict() == wanted else b"n")
            os._exit(0)
        del held
        assert sum(batch.num_rows for batch in batches) > 0
        os.write(go, b"g")
        assert os.read(told, 1) == b"y"
        os.waitpid(child, 0)
        for end in (told, tell, ready, go):
            os.close(end)


def test_what_is_not_memory_of_the_client_is_left_alone(server: ServerProcess, table: str, tmp_path: Path) -> None:
    memory = SharedMemory(READ_OPTIONS)
    process, descriptor, nonce = offer_of(memory).split(".")
    with tempfile.NamedTemporaryFile(dir=tmp_path) as file:
        file.write(memory._memory[:])
        file.flush()
        before = Path(file.name).read_bytes()
        for offer in (
            f"{process}.{descriptor}.{'0' * 32}",
            f"{process}.{file.fileno()}.{nonce}",
            f"{server.pid}.0.{nonce}",
            f"{process}.9999.{nonce}",
            "../../etc/passwd",
            "1.2",
        ):
            assert set(told_of(server, table, offer)) == {None}, offer
        assert Path(file.name).read_bytes() == before


def test_memory_that_could_shrink_is_refused(server: ServerProcess, table: str) -> None:
    """Its owner could take pages away while the server writes there."""
    sound = SharedMemory(READ_OPTIONS)
    descriptor = os.memfd_create("pgflight", os.MFD_ALLOW_SEALING)
    os.write(descriptor, sound._memory[:])
    offer = f"{os.getpid()}.{descriptor}.{offer_of(sound).split('.')[2]}"
    assert set(told_of(server, table, offer)) == {None}
    os.close(descriptor)


@pytest.mark.parametrize("head", [(0, 1 << 20), (4, 100), (5000, 64), (12, 1 << 40), (1 << 20, 1 << 20)])
def test_geometry_that_cannot_be_is_refused(head: tuple[int, int]) -> None:
    memory = SharedMemory(READ_OPTIONS)
    assert shared.SharedMemory.opened(offer_of(memory)) is not None
    shared.HEAD.pack_into(memory._memory, 0, shared.MAGIC, memory._nonce, *head)
    assert shared.SharedMemory.opened(offer_of(memory)) is None


def test_a_server_that_tells_nonsense(server: ServerProcess) -> None:
    memory = SharedMemory(READ_OPTIONS)

    class Chunk:
        data = None

        def __init__(self, slot: int, length: int) -> None:
            self.app_metadata = pa.py_buffer(TOLD.pack(shared.MAGIC, slot, length))

    for slot, length in ((SLOTS, 100), (0, 1 << 40)):
        with pytest.raises(pa.ArrowInvalid, match="shared memory"):
            memory.batch(Chunk(slot, length), keep=False)
    with pytest.raises(pa.ArrowInvalid):
        memory.batch(Chunk(0, 100), keep=False)
    assert memory._held == set()


def test_a_server_may_be_told_not_to(postgres, table: str) -> None:
    with ServerProcess(postgres.dsn(), environment={"PGFLIGHT_SHARE_MEMORY": "false"}) as server:
        assert set(told_of(server, table, offer_of(SharedMemory(READ_OPTIONS)))) == {None}
        with pgflight.connect(server.uri) as client:
            assert client.query(table).to_arrow().num_rows == ROWS


def test_nothing_is_left_of_clients_that_die(server: ServerProcess, table: str) -> None:
    before = server.process.num_fds()
    script = (
        "import sys, pgflight\n"
        "kept = iter(pgflight.connect(sys.argv[1]).query(sys.argv[2], streams=1, batch_bytes=1 << 20))\n"
        "print(next(kept).num_rows, flush=True)\n"
        "sys.stdin.read()\n"
    )
    for _ in range(5):
        command = [sys.executable, "-c", script, server.uri, table]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
            assert reader.stdout.readline()
            reader.send_signal(signal.SIGKILL)
    eventually(lambda: server.process.num_fds() <= before + 2)
    eventually(
        lambda: not any("memfd:pgflight" in each.path for each in server.process.memory_maps(grouped=False))
    )


def test_no_more_than_half_is_held(server: ServerProcess, table: str) -> None:
    with pgflight.connect(server.uri) as client:
        reader = client.query(table, **OPTIONS)
        held = list(reader)
        (memory,) = client._memories._idle
        assert len(held) > SLOTS
        assert len(memory._held) == MOST_HELD
        assert not memory.is_usable
