"""The pool for decoding: bounds, waiting, and which allocator serves."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from kernels.backend import gpus_present
from kernels.errors import CancelledError, ConfigError, OverloadedError
from tests.helpers.waiting import eventually
from tests.transport.device.host_cuda import HostCuda
from transport.device import pool as pool_module
from transport.device.cuda import Gpu
from transport.device.pool import DevicePool, DeviceRegion, RmmAllocator, allocator

MIB = 1 << 20


class Counted:
    """An allocator that has so many bytes and no more."""

    name = "counted"

    def __init__(self, gpu: Gpu, initial_bytes: int, maximum_bytes: int) -> None:
        self.sizes = (initial_bytes, maximum_bytes)
        self.left = maximum_bytes
        self.streams: list[int] = []

    def take(self, size_bytes: int, stream: int) -> np.ndarray:
        self.streams.append(stream)
        if size_bytes > self.left:
            raise MemoryError("std::bad_alloc: out_of_memory")
        self.left -= size_bytes
        return np.empty(size_bytes, np.uint8)

    def counts(self) -> tuple[int, int, int]:
        return self.sizes[1] - self.left, self.sizes[1], self.sizes[0]


@pytest.fixture
def cuda() -> Iterator[HostCuda]:
    made = HostCuda()
    yield made
    made.close()


def pool_of(cuda: HostCuda, maximum: int = 4 * MIB, wait_s: float = 0.05) -> tuple[DevicePool, Counted]:
    made: list[Counted] = []

    def make(*sizes: object) -> Counted:
        made.append(Counted(*sizes))
        return made[0]

    pool = DevicePool(cuda, cuda.gpus()[0], initial_bytes=MIB + 1, maximum_bytes=maximum, wait_s=wait_s, make=make)
    return pool, made[0]


def test_regions_and_statistics(cuda: HostCuda) -> None:
    pool, memory = pool_of(cuda)
    region = pool.allocate(MIB, stream=9)
    assert region.array.size == MIB
    assert memory.streams == [9]
    assert memory.sizes == (MIB + 256, 4 * MIB)
    assert pool.statistics().used_bytes == MIB
    assert pool.statistics().maximum_bytes == 4 * MIB
    assert pool.allocate(0).array.size == 1


def test_more_than_there_may_ever_be_is_refused_at_once(cuda: HostCuda) -> None:
    pool, memory = pool_of(cuda, wait_s=60)
    with pytest.raises(OverloadedError, match="exceed the pool's maximum"):
        pool.allocate(4 * MIB + 1)
    assert memory.streams == []


def test_a_spent_pool_is_refused_after_the_wait(cuda: HostCuda) -> None:
    pool, memory = pool_of(cuda)
    pool.allocate(4 * MIB)
    with pytest.raises(OverloadedError, match="no 1 bytes of GPU memory came free"):
        pool.allocate(1)
    assert len(memory.streams) > 2


def test_waiting_ends_when_memory_comes_free(cuda: HostCuda) -> None:
    pool, memory = pool_of(cuda, wait_s=60)
    pool.allocate(4 * MIB)
    taken: list[DeviceRegion] = []
    thread = threading.Thread(target=lambda: taken.append(pool.allocate(MIB)))
    thread.start()
    eventually(lambda: len(memory.streams) > 3)
    memory.left = MIB
    thread.join(10)
    assert taken


def test_whoever_waits_can_be_called_off(cuda: HostCuda) -> None:
    pool, _ = pool_of(cuda, wait_s=60)
    pool.allocate(4 * MIB)

    def check() -> None:
        raise CancelledError("gone")

    with pytest.raises(CancelledError):
        pool.allocate(1, check=check)


@pytest.mark.parametrize(("initial", "maximum"), [(0, MIB), (2 * MIB, MIB)])
def test_bounds_that_make_no_sense(cuda: HostCuda, initial: int, maximum: int) -> None:
    with pytest.raises(ConfigError, match="make no sense"):
        DevicePool(cuda, cuda.gpus()[0], initial_bytes=initial, maximum_bytes=maximum, make=Counted)


def test_a_device_without_room_for_the_pool(cuda: HostCuda) -> None:
    def full(*_: object) -> Counted:
        raise MemoryError("std::bad_alloc")

    with pytest.raises(OverloadedError, match="left for the pool"):
        DevicePool(cuda, cuda.gpus()[0], initial_bytes=1, maximum_bytes=1, make=full)


@pytest.mark.skipif(bool(gpus_present()), reason="there is a GPU")
@pytest.mark.parametrize("make", [allocator, RmmAllocator])
def test_rmm_without_a_gpu_has_no_memory(cuda: HostCuda, make: Any) -> None:
    """Which also shows that RMM has what is asked of it."""
    with pytest.raises(OverloadedError, match="left for the pool"):
        DevicePool(cuda, cuda.gpus()[0], initial_bytes=1, maximum_bytes=1, make=make)


def test_cupy_serves_where_rmm_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setitem(sys.modules, "rmm", None)
    monkeypatch.setattr(pool_module, "CupyAllocator", lambda *sizes: made.append("cupy"))
    allocator(Gpu(0, "GPU-0", "none", 0), 1, 1)
    assert made == ["cupy"]
