"""The budget: it bounds, it waits, it gives back; from many threads."""

from __future__ import annotations

import gc
import random
import threading
import time

import numpy as np
import psutil
import pyarrow as pa
import pytest

from kernels.errors import OverloadedError
from tests.helpers.waiting import eventually
from transport.memory import ALIGN_BYTES, GRAIN_BYTES, Region, RegionPool

MIB = 1 << 20
UNIT = GRAIN_BYTES + ALIGN_BYTES
"""What the smallest region takes from the budget."""


def taking(pool: RegionPool, size: int) -> tuple[threading.Thread, list[Region | Exception]]:
    """Allocate in another thread; return it and where the outcome appears."""
    outcome: list[Region | Exception] = []

    def work() -> None:
        try:
            outcome.append(pool.allocate(size))
        except OverloadedError as failure:
            outcome.append(failure)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, outcome


@pytest.mark.parametrize("size", [1, 63, 64, 4096, GRAIN_BYTES - 1, GRAIN_BYTES, GRAIN_BYTES + 1, 10_000_000])
def test_a_region_is_large_enough_and_aligned(size: int) -> None:
    pool = RegionPool(64 << 20)
    region = pool.allocate(size)
    assert region.array.size >= size
    assert region.array.ctypes.data % ALIGN_BYTES == 0
    assert region.array.size % 8 == 0
    assert region.array.flags.writeable
    assert size <= pool.lent_bytes <= pool.budget_bytes
    del region
    assert pool.lent_bytes == 0


def test_regions_do_not_overlap() -> None:
    pool = RegionPool(64 << 20)
    regions = [pool.allocate(size) for size in (1, 100, GRAIN_BYTES, 200_000)]
    for number, region in enumerate(regions):
        region.array[:] = number
    assert [set(region.array.tolist()) for region in regions] == [{0}, {1}, {2}, {3}]


def test_memory_is_used_again() -> None:
    pool = RegionPool(64 << 20)
    region = pool.allocate(1000)
    region.array[:8] = 77
    address = region.array.ctypes.data
    del region
    assert (pool.lent_bytes, pool.kept_bytes) == (0, UNIT)
    again = pool.allocate(500)
    assert again.array.ctypes.data == address
    assert (pool.lent_bytes, pool.kept_bytes) == (UNIT, 0)


def test_trim_gives_memory_back() -> None:
    pool = RegionPool(64 << 20)
    kept = pool.allocate(1)
    regions = [pool.allocate(1) for _ in range(3)]
    regions.clear()
    assert pool.kept_bytes == 3 * UNIT
    pool.trim()
    assert (pool.lent_bytes, pool.kept_bytes) == (UNIT, 0)
    assert kept.array.size == GRAIN_BYTES


def test_kept_memory_counts_and_makes_way() -> None:
    """Lent and kept together stay within the budget, whatever the sizes."""
    pool = RegionPool(4 * UNIT)
    regions = [pool.allocate(1) for _ in range(4)]
    regions.clear()
    assert pool.kept_bytes == 4 * UNIT
    large = pool.allocate(3 * GRAIN_BYTES)
    assert pool.lent_bytes + pool.kept_bytes <= pool.budget_bytes
    assert large.array.size == 3 * GRAIN_BYTES


def test_more_than_the_budget_is_refused_at_once() -> None:
    pool = RegionPool(UNIT, wait_s=60)
    with pytest.raises(OverloadedError, match="exceeds the memory budget"):
        pool.allocate(GRAIN_BYTES + 1)


def test_a_spent_budget_is_refused_after_the_wait() -> None:
    pool = RegionPool(UNIT, wait_s=0.05)
    region = pool.allocate(1)
    with pytest.raises(OverloadedError, match="stayed in use"):
        pool.allocate(1)
    assert pool.lent_bytes == UNIT
    del region
    assert pool.allocate(1).array.size == GRAIN_BYTES


def test_waiting_ends_when_a_region_comes_back() -> None:
    pool = RegionPool(UNIT, wait_s=60)
    region = pool.allocate(1)
    thread, outcome = taking(pool, 1)
    assert not outcome
    del region
    thread.join(10)
    assert isinstance(outcome[0], Region)


def test_a_small_request_is_not_held_up_by_a_large_one() -> None:
    """Whoever can go on is woken, not only who waits longest."""
    pool = RegionPool(3 * UNIT, wait_s=60)
    held = [pool.allocate(1) for _ in range(3)]
    large, large_outcome = taking(pool, 2 * GRAIN_BYTES)
    eventually(lambda: len(pool._changed._waiters) == 1)
    small, small_outcome = taking(pool, 1)
    eventually(lambda: len(pool._changed._waiters) == 2)
    held.pop()
    small.join(10)
    assert isinstance(small_outcome[0], Region)
    assert not large_outcome
    held.clear()
    small_outcome.clear()
    large.join(10)
    assert isinstance(large_outcome[0], Region)


def test_a_region_lives_as_long_as_an_arrow_buffer() -> None:
    pool = RegionPool(64 << 20)
    region = pool.allocate(800)
    region.array.view(np.int64)[:100] = np.arange(100)
    buffer = pa.foreign_buffer(region.array.ctypes.data, 800, base=region)
    array = pa.Array.from_buffers(pa.int64(), 100, [None, buffer])
    del region, buffer
    part = array[90:]
    del array
    assert pool.lent_bytes == UNIT
    assert part.to_pylist() == list(range(90, 100))
    del part
    assert pool.lent_bytes == 0


def test_collected_inside_the_pools_own_lock() -> None:
    """A garbage collection may run Region.__del__ while this thread is inside the pool."""
    pool = RegionPool(64 << 20)
    cycle: list[object] = [pool.allocate(1)]
    cycle.append(cycle)
    del cycle
    with pool._changed:
        gc.collect()
    assert pool.lent_bytes == 0


def test_many_threads() -> None:
    """The sums hold, and nobody gets memory that somebody else has."""
    pool = RegionPool(40 * UNIT, wait_s=60)
    problems: list[str] = []

    def work(number: int) -> None:
        source = random.Random(number)
        kept: list[Region] = []
        for turn in range(300):
            if (kept and source.random() < 0.6) or len(kept) > 2:
                region = kept.pop(source.randrange(len(kept)))
                if not (region.array[:64] == number).all():
                    problems.append(f"thread {number}, turn {turn}")
            else:
                region = pool.allocate(source.choice((1, GRAIN_BYTES, 2 * GRAIN_BYTES, 3 * GRAIN_BYTES)))
                region.array[:64] = number
                kept.append(region)
            if pool.lent_bytes > pool.budget_bytes:
                problems.append("over budget")
            del region

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
        assert not thread.is_alive()
    assert problems == []
    assert pool.lent_bytes == 0
    assert 0 < pool.kept_bytes <= pool.budget_bytes


def test_what_is_dropped_goes_back_to_the_system() -> None:
    """Also what lies between blocks that are still in use; malloc keeps that, and a server grows to twice its budget."""
    np.empty(31 << 20, np.uint8).fill(1)  # from now on malloc takes blocks of up to this size from its heap
    pool = RegionPool(256 << 20)
    regions = [pool.allocate(MIB) for _ in range(100)]
    for region in regions:
        region.array.fill(1)
    before = psutil.Process().memory_info().rss
    del regions[::2], region
    pool.trim()
    assert pool.lent_bytes > 45 * MIB
    assert psutil.Process().memory_info().rss < before - 40 * MIB
