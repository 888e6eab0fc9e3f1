"""Pinned blocks: lent once at a time, and not again while a copy reads them."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from kernels.errors import CancelledError, ConfigError, OverloadedError
from tests.helpers.waiting import eventually
from tests.transport.device.host_cuda import HostCuda
from transport.device.pinned import MIB, PAGE_BYTES, PinnedPool, PinnedRegion


@pytest.fixture
def cuda() -> Iterator[HostCuda]:
    made = HostCuda()
    yield made
    made.close()


def pool_of(cuda: HostCuda, blocks: int = 2, wait_s: float = 0.05) -> PinnedPool:
    return PinnedPool(cuda, block_mib=1, blocks=blocks, wait_s=wait_s)


@pytest.mark.parametrize("size", [1, 4096, MIB - 1, MIB, MIB + 64, MIB + PAGE_BYTES])
def test_a_block_and_its_pad_fit_into_one(cuda: HostCuda, size: int) -> None:
    pool = pool_of(cuda)
    region = pool.allocate(size)
    assert region.array.dtype == np.uint8
    assert region.array.size == MIB + PAGE_BYTES >= size
    assert region.array.ctypes.data % 4096 == 0
    assert region.address == region.array.ctypes.data
    region.array[:] = 7
    assert pool.lent_bytes == pool.held_bytes == MIB
    del region
    assert (pool.lent_bytes, pool.held_bytes) == (0, MIB)


def test_blocks_are_used_again(cuda: HostCuda) -> None:
    pool = pool_of(cuda)
    addresses = set()
    for _ in range(10):
        addresses.add(pool.allocate(MIB).address)
    assert len(addresses) == 1
    assert cuda.allocations == 1


def test_two_that_live_are_apart(cuda: HostCuda) -> None:
    pool = pool_of(cuda)
    one, other = pool.allocate(1), pool.allocate(1)
    one.array[:] = 1
    other.array[:] = 2
    assert set(one.array.tolist()) == {1}


def test_a_spent_budget_is_refused_after_the_wait(cuda: HostCuda) -> None:
    pool = pool_of(cuda)
    held = [pool.allocate(1), pool.allocate(1)]
    with pytest.raises(OverloadedError, match="stayed in use"):
        pool.allocate(1)
    del held[0]
    assert pool.allocate(1).array.size


def test_waiting_ends_when_a_block_comes_back(cuda: HostCuda) -> None:
    pool = pool_of(cuda, 1, wait_s=60)
    held = [pool.allocate(1)]
    taken: list[PinnedRegion] = []
    looks: list[None] = []
    thread = threading.Thread(target=lambda: taken.append(pool.allocate(1, check=lambda: looks.append(None))))
    thread.start()
    eventually(lambda: looks)
    assert not taken
    held.clear()
    thread.join(10)
    assert taken


def test_whoever_waits_can_be_called_off(cuda: HostCuda) -> None:
    pool = pool_of(cuda, 1, wait_s=60)
    held = pool.allocate(1)

    def check() -> None:
        raise CancelledError("gone")

    with pytest.raises(CancelledError):
        pool.allocate(1, check=check)
    assert pool.lent_bytes == held.array.size - PAGE_BYTES


def test_a_block_is_not_lent_again_while_it_is_copied_from(cuda: HostCuda) -> None:
    pool = pool_of(cuda, 1)
    region = pool.allocate(1)
    address = region.address
    cuda.busy.add(5)
    region.read_by(5, 0)
    del region
    assert pool.lent_bytes == 0
    with pytest.raises(OverloadedError):
        pool.allocate(1)
    cuda.busy.clear()
    assert pool.allocate(1).address == address


def test_copies_on_two_streams_are_both_waited_for(cuda: HostCuda) -> None:
    """One event per device: the second stream is made to wait for the first, so that its event stands for both."""
    pool = pool_of(cuda, 1)
    region = pool.allocate(1)
    cuda.busy |= {5, 6}
    region.read_by(5, 0)
    region.read_by(6, 0)
    event = next(iter(cuda.events))
    assert cuda.waits == [(event, 6)]
    assert cuda.events == {event: 6}
    cuda.busy.clear()
    region.read_by(7, 0)
    assert len(cuda.waits) == 1


def test_a_larger_block_takes_the_room_of_others(cuda: HostCuda) -> None:
    pool = pool_of(cuda, 4)
    regions = [pool.allocate(1) for _ in range(4)]
    with pytest.raises(OverloadedError, match="stayed in use"):
        pool.allocate(2 * MIB + 64)
    del regions[:2]
    large = pool.allocate(2 * MIB + 64)
    assert large.array.size == 2 * MIB + PAGE_BYTES
    assert pool.held_bytes == pool.budget_bytes == 4 * MIB
    assert cuda.allocations == 3
    with pytest.raises(OverloadedError, match="exceed the pinned memory"):
        pool.allocate(4 * MIB + PAGE_BYTES + 1)
    del large, regions
    assert pool.allocate(4 * MIB).array.size == 4 * MIB + PAGE_BYTES
    assert cuda.allocations == 1


@pytest.mark.parametrize(("block_mib", "blocks"), [(0, 1), (3, 1), (-4, 1), (4, 0)])
def test_sizes_that_make_no_sense(cuda: HostCuda, block_mib: int, blocks: int) -> None:
    with pytest.raises(ConfigError, match="pinned blocks"):
        PinnedPool(cuda, block_mib=block_mib, blocks=blocks)


def test_collected_inside_the_pools_own_lock(cuda: HostCuda) -> None:
    pool = pool_of(cuda, 1)
    cycle: list[object] = [pool.allocate(1)]
    cycle.append(cycle)
    del cycle
    with pool._changed:
        gc.collect()
    assert pool.allocate(1).array.size


def test_close_gives_everything_back(cuda: HostCuda) -> None:
    pool = pool_of(cuda, 3)
    lent, copied, free = (pool.allocate(1) for _ in range(3))
    copied.read_by(5, 0)
    del copied, free
    pool.close()
    assert cuda.allocations == 1
    with pytest.raises(OverloadedError, match="closed"):
        pool.allocate(1)
    lent.array[:] = 1
    del lent
    assert (cuda.allocations, pool.held_bytes, cuda.events) == (0, 0, {})


def test_many_threads(cuda: HostCuda) -> None:
    pool = pool_of(cuda, 3, wait_s=60)
    problems: list[str] = []

    def work(number: int) -> None:
        for turn in range(200):
            region = pool.allocate(1)
            region.array[:64] = number
            region.read_by(number, 0)
            if not (region.array[:64] == number).all() or pool.lent_bytes > pool.budget_bytes:
                problems.append(f"thread {number}, turn {turn}")
            del region

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert problems == []
    assert pool.lent_bytes == 0
