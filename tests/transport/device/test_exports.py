"""Exports: a producer's side of regions that clients read in place."""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from kernels.errors import CancelledError, ConfigError, OverloadedError, RequestError
from tests.helpers.waiting import eventually
from tests.transport.device.host_cuda import HostCuda, host_view
from transport.device.cuda import CudaError
from transport.device.descriptor import ColumnExtents, DeviceDescriptor
from transport.device.exports import Exports, ExportStream
from transport.device.ledger import LeaseLimits
from transport.device.regions import ExportRegion
from transport.device.slabs import REGION_GRAIN_BYTES, SLAB_GRAIN_BYTES, SlabSet

GRAIN = REGION_GRAIN_BYTES
SLAB = SLAB_GRAIN_BYTES
ANN, BOB = "a" * 32, "b" * 32
LIMITS = LeaseLimits(client_bytes=SLAB)


@pytest.fixture
def cuda() -> Iterator[HostCuda]:
    made = HostCuda(devices=2)
    yield made
    made.close()


def exports_of(cuda: HostCuda, slabs: int = 1, limits: LeaseLimits = LIMITS, wait_s: float = 0.05) -> Exports:
    sets = [SlabSet(cuda, gpu, slab_bytes=SLAB, maximum_bytes=slabs * SLAB) for gpu in cuda.gpus()]
    exports = Exports(cuda, sets, limits, socket="/run/lease.sock", wait_s=wait_s, make_view=host_view)
    exports.connected(ANN)
    exports.connected(BOB)
    return exports


def publish(stream: ExportStream, region: ExportRegion, used: int = 1, rows: int = 0) -> DeviceDescriptor:
    return stream.publish(region, used_bytes=used, rows=rows, columns=(), cuda_stream=3)


def in_thread(work: Any) -> tuple[threading.Thread, list[Any]]:
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except Exception as failure:
            outcome.append(failure)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def test_a_batch_from_allocation_to_release(cuda: HostCuda) -> None:
    exports = exports_of(cuda)
    stream = exports.stream(ANN, 7, 1)
    region = stream.allocate(10 * GRAIN)
    region.array[:] = 5
    described = stream.publish(
        region, used_bytes=3 * GRAIN - 10, rows=4, columns=[ColumnExtents(1, [(0, 8), (64, 32)])], cuda_stream=3
    )
    assert cuda.synchronized == [3]
    assert (described.client, described.stream, described.rows) == (ANN, 7, 4)
    assert described.gpu == cuda.gpus()[1].uuid
    assert (described.length, described.slab_bytes) == (3 * GRAIN - 10, SLAB)
    assert host_view(described.address + described.offset, 8, None, 1).tolist() == [5] * 8
    seen = exports.statistics()
    assert (seen.leases, seen.leased_bytes, seen.free_bytes) == (1, 3 * GRAIN, SLAB - 3 * GRAIN)
    with pytest.raises(ValueError, match="was published"):
        region.taken()
    del region
    gc.collect()
    assert exports.statistics().leases == 1
    exports.released(BOB, (described.lease,))
    assert exports.statistics().leases == 1
    exports.released(ANN, (described.lease,))
    assert exports.statistics().free_bytes == SLAB


def test_the_descriptor_is_json(cuda: HostCuda) -> None:
    exports = exports_of(cuda)
    stream = exports.stream(ANN, 7, 0)
    said = json.loads(publish(stream, stream.allocate(1)).to_json())
    assert said["version"] == 1
    assert said["free_data"] == "/run/lease.sock"
    assert len(said["remote_handle"]) == 88


def test_a_batch_that_was_made_elsewhere(cuda: HostCuda) -> None:
    exports = exports_of(cuda)
    stream = exports.stream(ANN, 1, 0)
    elsewhere = cuda.malloc(SLAB, 0)
    host_view(elsewhere, 100, None, 0)[:] = range(100)
    region = stream.copy_of(elsewhere, 100, cuda_stream=3)
    described = publish(stream, region, used=100)
    assert host_view(described.address + described.offset, 100, None, 0).tolist() == list(range(100))


def test_who_has_no_lease_connection_is_refused(cuda: HostCuda) -> None:
    exports = exports_of(cuda)
    with pytest.raises(RequestError, match="lease connection"):
        exports.stream("c" * 32, 1, 0)
    with pytest.raises(RequestError, match="GPU 5 exports nothing"):
        exports.stream(ANN, 1, 5)


def test_a_region_that_is_not_published_comes_back_once_the_device_is_quiet(cuda: HostCuda) -> None:
    exports = exports_of(cuda)
    stream = exports.stream(ANN, 1, 0)
    region = stream.allocate(SLAB)
    view = region.array[10:]
    del region
    gc.collect()
    assert exports.statistics().free_bytes == 0, "a view of it is alive"
    assert cuda.device_synchronizations == 0
    del view
    assert stream.allocate(SLAB).array.size == SLAB
    assert cuda.device_synchronizations == 1


def test_past_the_clients_cap_the_producer_waits(cuda: HostCuda) -> None:
    exports = exports_of(cuda, slabs=4, wait_s=60)
    stream = exports.stream(ANN, 1, 0)
    first = publish(stream, stream.allocate(SLAB), used=SLAB)
    thread, outcome = in_thread(lambda: stream.allocate(SLAB))
    eventually(lambda: exports.statistics().waiting == 1)
    assert exports.statistics().slab_bytes == SLAB, "nothing was allocated beyond the cap"
    other = exports.stream(BOB, 1, 0).allocate(SLAB)
    assert other.array.size == SLAB
    exports.released(ANN, (first.lease,))
    thread.join(10)
    assert isinstance(outcome[0], ExportRegion)


def test_past_the_cap_of_all_the_producer_waits(cuda: HostCuda) -> None:
    exports = exports_of(cuda, slabs=1, wait_s=60)
    ann, bob = exports.stream(ANN, 1, 0), exports.stream(BOB, 1, 0)
    held = publish(ann, ann.allocate(SLAB), used=SLAB)
    thread, outcome = in_thread(lambda: bob.allocate(1))
    eventually(lambda: exports.statistics().waiting == 1)
    assert cuda.allocations == 1
    exports.disconnected(ANN)
    thread.join(10)
    assert outcome[0].address == held.address


def test_the_number_of_leases_is_capped_too(cuda: HostCuda) -> None:
    exports = exports_of(cuda, limits=LeaseLimits(client_bytes=SLAB, client_leases=2))
    stream = exports.stream(ANN, 1, 0)
    publish(stream, stream.allocate(1))
    region = stream.allocate(1)
    with pytest.raises(OverloadedError, match="gave nothing back"):
        stream.allocate(1)
    del region
    stream.allocate(1)


@pytest.mark.parametrize("size", [SLAB + 1, 2 * SLAB])
def test_a_batch_that_can_never_fit_is_refused_at_once(cuda: HostCuda, size: int) -> None:
    exports = exports_of(cuda, slabs=3, limits=LeaseLimits(client_bytes=2 * SLAB - 1), wait_s=600)
    with pytest.raises(OverloadedError, match="exceeds"):
        exports.stream(ANN, 1, 0).allocate(size)


@pytest.mark.parametrize("leave", ["disconnected", "done"])
def test_a_producer_that_waits_for_a_client_that_leaves_gives_up(cuda: HostCuda, leave: str) -> None:
    exports = exports_of(cuda, wait_s=60)
    stream = exports.stream(ANN, 1, 0)
    publish(stream, stream.allocate(SLAB), used=SLAB)
    thread, outcome = in_thread(lambda: stream.allocate(1))
    eventually(lambda: exports.statistics().waiting == 1)
    if leave == "done":
        exports.done(ANN, 1, ())
    else:
        exports.disconnected(ANN)
    thread.join(10)
    assert isinstance(outcome[0], CancelledError)
    assert exports.statistics().leases == 0


def test_a_producer_that_waits_can_be_called_off(cuda: HostCuda) -> None:
    exports = exports_of(cuda, wait_s=60)
    calls: list[None] = []

    def check() -> None:
        calls.append(None)
        raise CancelledError("gone")

    stream = exports.stream(ANN, 1, 0, check)
    held = stream.allocate(SLAB)
    with pytest.raises(CancelledError, match="gone"):
        stream.allocate(1)
    assert held.array.size == SLAB
    assert exports.statistics().waiting == 0


@pytest.mark.parametrize("leave", ["disconnected", "done"])
def test_a_batch_of_a_client_that_left_is_not_published(cuda: HostCuda, leave: str) -> None:
    exports = exports_of(cuda)
    stream = exports.stream(ANN, 1, 0)
    region = stream.allocate(SLAB)
    if leave == "done":
        exports.done(ANN, 1, ())
    else:
        exports.disconnected(ANN)
    with pytest.raises(CancelledError):
        publish(stream, region)
    del region
    gc.collect()
    assert exports.statistics().free_bytes == SLAB


def test_what_was_under_way_comes_back_when_a_reader_is_done(cuda: HostCuda) -> None:
    exports = exports_of(cuda)
    stream, other = exports.stream(ANN, 1, 0), exports.stream(ANN, 2, 0)
    held, lost = (publish(stream, stream.allocate(1)) for _ in range(2))
    elsewhere = publish(other, other.allocate(1))
    exports.done(ANN, 1, (held.lease,))
    assert exports.statistics().leases == 2
    exports.released(ANN, (held.lease, lost.lease, elsewhere.lease))
    assert exports.statistics().leases == 0


def test_an_expired_region_is_not_handed_out_under_its_reader(cuda: HostCuda) -> None:
    now = [0.0]
    sets = [SlabSet(cuda, cuda.gpus()[0], slab_bytes=SLAB, maximum_bytes=SLAB)]
    limits = LeaseLimits(lease_s=10, quarantine_s=5, client_bytes=SLAB)
    exports = Exports(cuda, sets, limits, socket="", wait_s=0.05, clock=lambda: now[0], make_view=host_view)
    exports.connected(ANN)
    exports.connected(BOB)
    ann, bob = exports.stream(ANN, 1, 0), exports.stream(BOB, 1, 0)
    publish(ann, ann.allocate(SLAB), used=SLAB)
    now[0] = 1000.0
    exports.tick()
    assert exports.statistics().quarantined_bytes == SLAB
    with pytest.raises(OverloadedError):
        bob.allocate(1)
    exports.disconnected(ANN)
    assert bob.allocate(SLAB).array.size == SLAB


def test_a_device_that_failed_keeps_what_was_given_up(cuda: HostCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    exports = exports_of(cuda)
    stream = exports.stream(ANN, 1, 0)
    region = stream.allocate(SLAB)

    def fail(ordinal: int) -> None:
        raise CudaError("CUDA failed (cudaDeviceSynchronize: cudaErrorIllegalAddress)")

    monkeypatch.setattr(cuda, "synchronize_device", fail)
    del region
    gc.collect()
    exports.tick()
    assert exports.statistics().free_bytes == 0
    with pytest.raises(CudaError):
        stream.allocate(1)


def test_closed_without_clients_the_slabs_are_freed(cuda: HostCuda) -> None:
    exports = exports_of(cuda)
    stream = exports.stream(ANN, 1, 0)
    publish(stream, stream.allocate(1))
    exports.disconnected(ANN)
    exports.disconnected(BOB)
    exports.close()
    assert cuda.allocations == 0
    with pytest.raises(OverloadedError, match="shutting down"):
        exports.connected(ANN)


def test_closed_under_a_client_the_slabs_stay(cuda: HostCuda) -> None:
    exports = exports_of(cuda)
    stream = exports.stream(ANN, 1, 0)
    publish(stream, stream.allocate(1))
    exports.close()
    assert cuda.allocations == 1
    with pytest.raises(OverloadedError, match="shutting down"):
        stream.allocate(1)


def test_collected_inside_its_own_lock(cuda: HostCuda) -> None:
    exports = exports_of(cuda)
    stream = exports.stream(ANN, 1, 0)
    cycle: list[object] = [stream.allocate(SLAB)]
    cycle.append(cycle)
    del cycle
    with exports._changed:
        gc.collect()
    assert stream.allocate(SLAB).array.size == SLAB


def test_exports_need_a_device(cuda: HostCuda) -> None:
    with pytest.raises(ConfigError):
        Exports(cuda, [], LIMITS, socket="")
