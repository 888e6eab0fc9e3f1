"""On a GPU: the calls, the pools, and what CuPy, torch and libcudf make of a batch from another process.

``python -m pytest -m "gpu and not slow" tests/transport/device`` runs this and the sharing tests, without PostgreSQL.
"""

from __future__ import annotations

import decimal
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kernels.backend import gpus_present
from kernels.errors import ConfigError, OverloadedError
from tests.helpers.waiting import eventually
from tests.transport.device.worlds import ReaderError, World, world
from transport.device.arrays import view
from transport.device.cuda import Cuda, Gpu
from transport.device.pinned import MIB, PinnedPool
from transport.device.pool import Allocator, CupyAllocator, DevicePool, RmmAllocator

if not gpus_present():
    pytest.skip("there is no GPU", allow_module_level=True)

pytestmark = pytest.mark.gpu
ALLOCATORS = [CupyAllocator, *([RmmAllocator] if importlib.util.find_spec("rmm") else [])]


def installed(*names: str) -> pytest.MarkDecorator:
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@pytest.fixture(scope="module")
def cuda() -> Cuda:
    return Cuda()


@pytest.fixture
def gpu(cuda: Cuda) -> Gpu:
    return cuda.gpus()[0]


@pytest.fixture
def stream(cuda: Cuda, gpu: Gpu) -> Iterator[int]:
    made = cuda.stream(gpu.ordinal)
    yield made
    cuda.destroy_stream(made)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[World]:
    yield from world("gpu", tmp_path)


def test_gpus_have_names(cuda: Cuda) -> None:
    for gpu in cuda.gpus():
        assert gpu.uuid.startswith("GPU-")
        assert len(gpu.uuid) == 40
        free, total = cuda.memory(gpu.ordinal)
        assert 0 < free <= total
        assert total == pytest.approx(gpu.memory_bytes, rel=0.05)


def test_a_gpu_that_is_not_there(cuda: Cuda) -> None:
    with pytest.raises(ConfigError), cuda.on(99):
        pass


def test_more_than_the_device_has(cuda: Cuda, gpu: Gpu) -> None:
    with pytest.raises(OverloadedError, match="cudaErrorMemoryAllocation"):
        cuda.malloc(1 << 50, gpu.ordinal)
    cuda.free(cuda.malloc(1 << 20, gpu.ordinal))


def test_there_and_back_by_pinned_memory(cuda: Cuda, gpu: Gpu, stream: int) -> None:
    pool = PinnedPool(cuda, block_mib=4, blocks=2)
    device = cuda.malloc(4 * MIB, gpu.ordinal)
    out, back = pool.allocate(4 * MIB), pool.allocate(4 * MIB)
    out.array[: 4 * MIB] = np.random.default_rng(1).integers(0, 256, 4 * MIB, np.uint8)
    back.array[:] = 0
    cuda.copy_to_device(device, out.address, 4 * MIB, stream)
    out.read_by(stream, gpu.ordinal)
    cuda.copy_to_host(back.address, device, 4 * MIB, stream)
    cuda.synchronize(stream)
    assert (back.array[: 4 * MIB] == out.array[: 4 * MIB]).all()
    cuda.free(device)
    del out, back
    pool.close()
    assert pool.held_bytes == 0


def test_pinned_blocks_are_not_overwritten_while_they_are_copied(cuda: Cuda, gpu: Gpu, stream: int) -> None:
    """Two blocks feed many copies: each arrives as it was when it was queued."""
    pool = PinnedPool(cuda, block_mib=4, blocks=2)
    turns, size = 64, 4 * MIB
    device = cuda.malloc(turns * size, gpu.ordinal)
    for turn in range(turns):
        region = pool.allocate(size)
        region.array[:size] = turn
        cuda.copy_to_device(device + turn * size, region.address, size, stream)
        region.read_by(stream, gpu.ordinal)
        del region
    cuda.synchronize(stream)
    whole = np.empty(turns * size, np.uint8)
    cuda.copy_to_host(whole.ctypes.data, device, whole.size, stream)
    cuda.synchronize(stream)
    assert (whole.reshape(turns, size) == np.arange(turns, dtype=np.uint8)[:, None]).all()
    cuda.free(device)
    pool.close()


@pytest.mark.parametrize("make", ALLOCATORS)
def test_a_pool_of_device_memory(cuda: Cuda, gpu: Gpu, stream: int, make: type[Allocator]) -> None:
    pool = DevicePool(
        cuda, gpu, initial_bytes=16 * MIB, maximum_bytes=64 * MIB, wait_s=0.1, make=make  # type: ignore[arg-type]
    )  # fmt: skip
    region = pool.allocate(16 * MIB, stream=stream)
    assert region.address % 256 == 0
    source = np.arange(2 * MIB, dtype=np.int64)
    cuda.copy_to_device(region.address, source.ctypes.data, source.nbytes, stream)
    cuda.synchronize(stream)
    assert (region.array.view(np.int64).get() == source).all()
    assert region.__cuda_array_interface__["data"][0] == region.address
    assert pool.statistics().used_bytes == 16 * MIB
    with pytest.raises(OverloadedError, match="came free"):
        pool.allocate(60 * MIB, stream=stream)
    part = region.array[100:]
    del region
    assert pool.statistics().used_bytes == 16 * MIB
    del part
    seen = pool.statistics()
    assert seen.used_bytes == 0
    assert seen.peak_bytes >= 16 * MIB
    assert 16 * MIB <= seen.pool_bytes <= 64 * MIB
    assert pool.allocate(48 * MIB).array.size == 48 * MIB


@pytest.mark.parametrize("make", ALLOCATORS)
def test_a_pool_larger_than_the_device(cuda: Cuda, gpu: Gpu, make: type[Allocator]) -> None:
    with pytest.raises(OverloadedError, match="left for the pool"):
        DevicePool(cuda, gpu, initial_bytes=1 << 50, maximum_bytes=1 << 51, make=make)  # type: ignore[arg-type]


def test_copies_on_the_device(cuda: Cuda, gpu: Gpu, stream: int) -> None:
    address = cuda.malloc(2 * MIB, gpu.ordinal)
    lower, upper = (view(address + at, MIB, None, gpu.ordinal) for at in (0, MIB))
    lower[:] = 9
    upper[:] = 0
    cuda.synchronize_device(gpu.ordinal)
    cuda.copy_on_device(address + MIB, address, MIB, stream)
    cuda.synchronize(stream)
    assert int(upper.sum()) == 9 * MIB
    cuda.free(address)


def columns() -> pa.RecordBatch:
    rows = 10_000
    return pa.record_batch(
        {
            "n": pa.array(range(rows), pa.int64()),
            "x": pa.array([n / 4 for n in range(rows)], pa.float64()),
            "gaps": pa.array([None if n % 3 else n for n in range(rows)], pa.int32()),
            "text": pa.array([None if n % 5 == 0 else f"row {n}" for n in range(rows)], pa.utf8()),
            "amount": pa.array([decimal.Decimal(n) / 100 for n in range(rows)], pa.decimal128(15, 2)),
            "yes": pa.array([n % 3 == 0 for n in range(rows)], pa.bool_()),
            "list": pa.array([[n, None, n][: n % 4] for n in range(rows)], pa.list_(pa.int32())),
            "texts": pa.array([[str(n), None][: n % 3] for n in range(rows)], pa.list_(pa.utf8())),
            "vector": pa.array([[n, 1, 2] for n in range(rows)], pa.list_(pa.float32(), 3)),
        }
    )


@pytest.mark.parametrize("library", ["cupy", pytest.param("torch", marks=installed("torch"))])
def test_columns_without_a_copy(here: World, library: str) -> None:
    service = here.serve()
    reader = service.reader(columns().schema)
    service.send(reader, columns())
    for name, total in (("n", 49_995_000), ("x", 12_498_750.0), ("vector", 50_025_000.0)):
        theirs, ours, found = reader.tell(library, number=0, column=name)
        assert theirs == ours
        assert found == pytest.approx(total, rel=1e-4)
    theirs, ours, _ = reader.tell(library, number=0, column="amount")
    assert theirs == ours
    with pytest.raises(ReaderError, match="NULLs"):
        reader.tell(library, number=0, column="gaps")
    with pytest.raises(ReaderError, match="differ in length"):
        reader.tell(library, number=0, column="text")


def test_booleans_are_unpacked(here: World) -> None:
    service = here.serve()
    reader = service.reader(columns().schema)
    service.send(reader, columns())
    assert reader.tell("booleans", number=0, column="yes") == columns()["yes"].to_pylist()


@installed("pylibcudf")
def test_libcudf_imports_without_a_copy(here: World, tmp_path: Path) -> None:
    batch = columns().drop_columns(["yes", "list", "texts", "vector"])
    service = here.serve()
    reader = service.reader(batch.schema)
    service.send(reader, batch)
    ours, theirs = reader.tell("pylibcudf", number=0)
    assert theirs == ours
    assert service.leases() == 1, "the table holds the lease"
    path = tmp_path / "batch.parquet"
    reader.tell("parquet", path=str(path))
    found = pq.read_table(path)
    assert [column.to_pylist() for column in found.columns] == [column.to_pylist() for column in batch.columns]
    reader.tell("forget")
    eventually(lambda: service.leases() == 0)


@installed("pylibcudf")
def test_libcudf_imports_lists(here: World, tmp_path: Path) -> None:
    batch = columns().select(["n", "list", "texts"])
    service = here.serve()
    reader = service.reader(batch.schema)
    service.send(reader, batch)
    reader.tell("pylibcudf", number=0)
    path = tmp_path / "lists.parquet"
    reader.tell("parquet", path=str(path))
    found = pq.read_table(path)
    assert [column.to_pylist() for column in found.columns] == [column.to_pylist() for column in batch.columns]
    reader.tell("forget")
    eventually(lambda: service.leases() == 0)


def test_a_client_without_a_gpu(here: World) -> None:
    service = here.serve()
    with pytest.raises(ReaderError) as refused:
        here.reader(CUDA_VISIBLE_DEVICES="").open(service.server.offer(), columns().schema)
    assert refused.value.kind == "NoGpuError"


def test_gpus_in_another_order(here: World) -> None:
    """The batch names its GPU by UUID; the client's own number of it does not matter."""
    gpus = here.cuda.gpus()
    service = here.serve()
    order = ",".join(gpu.uuid for gpu in reversed(gpus))
    reader = here.reader(CUDA_VISIBLE_DEVICES=order).open(service.server.offer(), columns().schema)
    service.send(reader, columns())
    assert reader.read(0).equals(columns())


@pytest.mark.skipif(gpus_present() < 2, reason="there is one GPU")
def test_a_gpu_that_the_client_does_not_see(here: World) -> None:
    service = here.serve()
    other = here.cuda.gpus()[1].uuid
    reader = here.reader(CUDA_VISIBLE_DEVICES=other).open(service.server.offer(), columns().schema)
    with pytest.raises(ReaderError, match="does not see"):
        service.send(reader, columns())


def test_slabs_are_what_was_asked_for(here: World) -> None:
    """Nothing else lies in them: another allocation of ours is another allocation of CUDA's."""
    service = here.serve()
    reader = service.reader(columns().schema)
    service.send(reader, columns())
    before = here.free_bytes()
    service.send(reader, columns(), 1)
    assert here.free_bytes() == before
