"""A server's memory read by clients in other processes: equal, never reused under them, and never lost.

``python -m pytest -m "gpu and not slow" tests/transport/device`` runs this on a GPU.
"""

from __future__ import annotations

import datetime as dt
import decimal
import json
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from kernels.errors import OverloadedError
from pgflight import device
from tests.helpers.waiting import eventually
from tests.transport.device.reader_process import HostReaderCuda
from tests.transport.device.worlds import SLAB, WORLDS, ReaderError, World, world

HALF = SLAB // 2


@pytest.fixture(params=WORLDS)
def here(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    yield from world(request.param, tmp_path)


def numbers(start: int = 0, rows: int = 1000) -> pa.RecordBatch:
    return pa.record_batch({"n": pa.array(range(start, start + rows), pa.int64())})


def large(value: int) -> pa.RecordBatch:
    """Make a batch that takes half a slab."""
    return pa.record_batch({"n": pa.array([value] * (HALF // 8), pa.int64())})


def every_type(rows: int = 300) -> pa.RecordBatch:
    """Make a batch with the types that a stream has, NULLs among them."""
    values = {
        "bool": pa.array([n % 3 == 0 for n in range(rows)], pa.bool_()),
        "int16": pa.array(range(rows), pa.int16()),
        "int32": pa.array([None if n % 7 == 0 else n for n in range(rows)], pa.int32()),
        "int64": pa.array(range(rows), pa.int64()),
        "uint32": pa.array(range(rows), pa.uint32()),
        "float32": pa.array(range(rows), pa.float32()),
        "float64": pa.array([n / 3 for n in range(rows)], pa.float64()),
        "decimal128": pa.array([decimal.Decimal(n - 5) / 100 for n in range(rows)], pa.decimal128(15, 2)),
        "decimal256": pa.array([decimal.Decimal(n) for n in range(rows)], pa.decimal256(50, 0)),
        "date": pa.array([dt.date(2000, 1, 1)] * rows, pa.date32()),
        "time": pa.array([dt.time(1, 2, 3)] * rows, pa.time64("us")),
        "timestamp": pa.array([dt.datetime(2000, 1, 1, tzinfo=dt.UTC)] * rows, pa.timestamp("us", "UTC")),
        "interval": pa.array([(n, 2, 3) for n in range(rows)], pa.month_day_nano_interval()),
        "text": pa.array([None if n % 5 == 0 else "ä" * (n % 40) for n in range(rows)], pa.utf8()),
        "empty": pa.array([""] * rows, pa.utf8()),
        "bytes": pa.array([bytes([n % 256]) * (n % 9) for n in range(rows)], pa.binary()),
        "uuid": pa.array([uuid.UUID(int=n).bytes for n in range(rows)], pa.uuid()),
        "json": pa.ExtensionArray.from_storage(pa.json_(pa.utf8()), pa.array(["{}"] * rows, pa.utf8())),
        "nothing": pa.array([None] * rows, pa.int32()),
        "list": pa.array([None if n % 9 == 0 else [n, None] * (n % 4) for n in range(rows)], pa.list_(pa.int32())),
        "pairs": pa.array(
            [[{"a": n, "b": ["ä" * n, None]}, None][: n % 3] for n in range(rows)],
            pa.list_(pa.struct([("a", pa.int64()), ("b", pa.list_(pa.utf8()))])),
        ),
        "vector": pa.array([[n, 0, -1] for n in range(rows)], pa.list_(pa.float32(), 3)),
    }
    fields = [pa.field(name, array.type, metadata={"pg:type": name}) for name, array in values.items()]
    return pa.record_batch(list(values.values()), schema=pa.schema(fields))


@pytest.mark.parametrize("rows", [0, 1, 8, 300])
def test_what_is_read_equals_what_was_written(here: World, rows: int) -> None:
    batch = every_type(rows)
    service = here.serve()
    reader = service.reader(batch.schema)
    service.send(reader, batch)
    assert reader.read(0).equals(batch, check_metadata=True)
    reader.tell("drop", number=0)
    eventually(lambda: service.leases() == 0)


def test_a_slab_is_opened_once(here: World) -> None:
    service = here.serve(client_bytes=2 * SLAB)
    reader = service.reader(large(0).schema)
    opened = [service.send(reader, large(value), value) for value in range(4)]
    assert opened == [1, 1, 2, 2]
    assert [reader.read(value)["n"][7].as_py() for value in range(4)] == [0, 1, 2, 3]


def test_a_batch_goes_back_when_it_is_dropped(here: World) -> None:
    service = here.serve()
    reader = service.reader(numbers().schema)
    for number in range(3):
        service.send(reader, numbers(), number)
    assert service.leases() == 3
    reader.tell("drop", number=1)
    eventually(lambda: service.leases() == 2)
    assert reader.read(2).equals(numbers())


def test_a_batch_stays_while_anything_made_of_it_lives(here: World) -> None:
    service = here.serve()
    reader = service.reader(numbers().schema)
    service.send(reader, numbers())
    reader.tell("keep", number=0, column="n")
    service.send(reader, numbers(), 1)
    reader.tell("drop", number=1)
    eventually(lambda: service.leases() == 1)
    reader.tell("forget")
    eventually(lambda: service.leases() == 0)


def test_killed_in_the_middle_of_reading(here: World) -> None:
    service = here.serve()
    for _ in range(3):
        reader = service.reader(large(0).schema)
        service.send(reader, large(1), 0)
        service.send(reader, large(2), 1)
        reader.tell("hammer", number=1)
        reader.kill()
        eventually(service.all_free)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_two_hundred_times(here: World) -> None:
    service = here.serve()

    def kill_one() -> None:
        reader = service.reader(large(0).schema)
        service.send(reader, large(1), 0)
        service.send(reader, large(2), 1)
        reader.end()
        eventually(service.all_free)

    kill_one()
    before = here.free_bytes()
    for _ in range(200):
        kill_one()
    assert service.exports.statistics().slab_bytes == SLAB
    eventually(here.free_bytes, lambda free: free >= before)


def test_nothing_is_reused_under_a_reader_whose_lease_expired(here: World) -> None:
    service = here.serve(slabs=1, lease_s=0.01, quarantine_s=0.01)
    holder = service.reader(large(0).schema)
    service.send(holder, large(7))
    holder.tell("hammer", number=0)
    eventually(lambda: service.exports.statistics().quarantined_bytes >= HALF)
    other = service.reader(large(0).schema)
    for turn in range(30):
        service.send(other, large(100 + turn))
        other.tell("drop", number=0)
    assert holder.tell("changed") == 0
    assert holder.read(0).equals(large(7))


def test_two_clients_at_the_cap_take_turns(here: World) -> None:
    service = here.serve(slabs=1)
    ann, bob = (service.reader(large(0).schema) for _ in range(2))
    service.send(ann, large(1), 0)
    service.send(ann, large(2), 1)
    described: list[str] = []
    stream = service.stream(bob)
    thread = threading.Thread(target=lambda: described.append(service.publish(stream, large(3))))
    thread.start()
    eventually(lambda: service.exports.statistics().waiting == 1)
    assert service.exports.statistics().slab_bytes == SLAB
    ann.tell("drop", number=0)
    thread.join(10)
    bob.tell("take", descriptor=described[0], number=0)
    assert (ann.read(1), bob.read(0)) == (large(2), large(3))


def test_a_client_that_never_gives_back_holds_up_only_itself(here: World) -> None:
    service = here.serve(slabs=2, wait_s=0.1)
    miser, other = (service.reader(large(0).schema) for _ in range(2))
    service.send(miser, large(1), 0)
    service.send(miser, large(2), 1)
    with pytest.raises(OverloadedError, match="gave nothing back"):
        service.send(miser, large(3), 2)
    service.send(other, large(4))
    assert other.read(0).equals(large(4))
    miser.kill()
    other.kill()
    eventually(service.all_free)


def test_what_was_under_way_comes_back_when_reading_stops(here: World) -> None:
    service = here.serve()
    reader = service.reader(numbers().schema)
    stream = service.stream(reader)
    service.send(reader, numbers())
    late = service.publish(stream, numbers(1))
    assert service.leases() == 2
    reader.tell("done")
    eventually(lambda: service.leases() == 1)
    with pytest.raises(ReaderError, match=r"LeaseError.*closed"):
        reader.tell("take", descriptor=late, number=1)
    assert reader.read(0).equals(numbers())
    reader.next_stream()
    service.send(reader, numbers(2), 2)
    assert reader.read(2).equals(numbers(2))


def test_closing_waits_for_the_last_batch(here: World) -> None:
    service = here.serve()
    reader = service.reader(numbers().schema)
    service.send(reader, numbers())
    reader.tell("close")
    assert reader.read(0).equals(numbers())
    reader.tell("drop", number=0)
    eventually(service.all_free)


def test_a_forked_child_cannot_give_back_what_its_parent_reads(here: World) -> None:
    service = here.serve()
    reader = service.reader(numbers().schema)
    service.send(reader, numbers())
    assert reader.tell("fork", number=0) == "LeaseError"
    service.send(reader, numbers(), 1)
    reader.tell("drop", number=1)
    eventually(lambda: service.leases() == 1)
    assert reader.read(0).equals(numbers())


def test_when_the_server_is_gone_its_memory_is_not_looked_at(here: World) -> None:
    service = here.serve()
    reader = service.reader(numbers().schema)
    service.send(reader, numbers())
    service.server.close()
    with pytest.raises(ReaderError, match=r"LeaseError.*closed the lease connection"):
        reader.read(0)


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({"client": "b" * 32}, "DescriptorError", "lent to another client"),
        ({"stream": 99}, "DescriptorError", "another stream"),
        ({"slab_bytes": 4 * SLAB}, "DescriptorError", "and not"),
        ({"gpu": "GPU-ffffffff-0000-0000-0000-000000000000"}, "GpuNotVisibleError", "does not see"),
        ({"version": 2}, "VersionError", "version 2"),
        ({"offset": SLAB}, "DescriptorError", "length"),
    ],
)
def test_a_server_that_lies(here: World, change: dict[str, Any], kind: str, text: str) -> None:
    service = here.serve()
    reader = service.reader(numbers().schema)
    said = json.loads(service.publish(service.stream(reader), numbers()))
    with pytest.raises(ReaderError, match=text) as refused:
        reader.tell("take", descriptor=json.dumps(said | change), number=0)
    assert refused.value.kind == kind
    reader.tell("done")
    eventually(lambda: service.leases() == 0)


def test_one_lease_is_not_taken_twice(here: World) -> None:
    service = here.serve()
    reader = service.reader(numbers().schema)
    said = service.publish(service.stream(reader), numbers())
    reader.tell("take", descriptor=said, number=0)
    with pytest.raises(ReaderError, match="lent one lease twice"):
        reader.tell("take", descriptor=said, number=1)
    assert reader.read(0).equals(numbers())
    reader.tell("drop", number=0)
    eventually(lambda: service.leases() == 0)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"boot_id": "another"}, "OtherHostError"),
        ({"pid_ns": "pid:[1]"}, "OtherNamespaceError"),
        ({"free_data": "/nowhere/lease.sock"}, "OtherHostError"),
        ({"version": 2}, "VersionError"),
        ({"free_data": None}, "LeaseError"),
    ],
)
def test_offers_that_cannot_be_taken(here: World, change: dict[str, Any], kind: str) -> None:
    service = here.serve()
    with pytest.raises(ReaderError) as refused:
        here.reader().open(service.server.offer() | change, numbers().schema)
    assert refused.value.kind == kind


def test_a_reader_in_the_servers_own_process(here: World) -> None:
    """A process cannot open its own handles: it reads where the server wrote."""
    service = here.serve()
    connections = device.LeaseConnections() if here.name == "gpu" else device.LeaseConnections(HostReaderCuda)
    connection = connections.open(service.server.offer())
    assert connections.open(service.server.offer()) is connection
    stream = device.DeviceStream(connection)
    lending = service.exports.stream(connection.client, 1, 0)
    described = service.publish(lending, numbers())
    with stream.batch(described.encode(), numbers().schema) as batch:
        said = json.loads(described)
        assert batch.column("n").values.address == said["address"] + said["offset"]
        assert batch.to_arrow().equals(numbers())
    eventually(lambda: service.leases() == 0)
    stream.close()
    connections.close()
    eventually(service.all_free)
