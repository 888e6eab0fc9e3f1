"""Slabs: how they grow, and that no two regions share a byte."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.errors import ConfigError, OverloadedError
from tests.transport.device.host_cuda import HostCuda
from transport.device.slabs import REGION_GRAIN_BYTES, SLAB_GRAIN_BYTES, Place, SlabSet

SLAB = SLAB_GRAIN_BYTES


@pytest.fixture
def cuda() -> Iterator[HostCuda]:
    made = HostCuda(8 * SLAB)
    yield made
    made.close()


def slab_set(cuda: HostCuda, maximum: int = 3 * SLAB) -> SlabSet:
    return SlabSet(cuda, cuda.gpus()[0], slab_bytes=SLAB, maximum_bytes=maximum)


def test_slabs_are_made_when_needed_and_no_further_than_allowed(cuda: HostCuda) -> None:
    slabs = slab_set(cuda)
    assert cuda.allocations == 0
    places = [slabs.take(SLAB) for _ in range(3)]
    assert None not in places
    assert cuda.allocations == 3
    assert slabs.take(1) is None
    assert (slabs.held_bytes, slabs.free_bytes) == (3 * SLAB, 0)
    slabs.give_back(places[1])
    assert slabs.take(SLAB) == places[1]
    slabs.close()
    assert cuda.allocations == 0


def test_each_slab_has_its_handle(cuda: HostCuda) -> None:
    slabs = slab_set(cuda)
    places = [slabs.take(SLAB) for _ in range(2)]
    handles = {place.slab.handle for place in places}
    assert len(handles) == 2
    assert {len(handle) for handle in handles} == {64}


def test_a_region_larger_than_a_slab_is_refused(cuda: HostCuda) -> None:
    with pytest.raises(OverloadedError, match="exceeds the export slabs"):
        slab_set(cuda).take(SLAB + 1)


@pytest.mark.parametrize(
    ("slab", "maximum"), [(0, SLAB), (SLAB + 1, 3 * SLAB), (SLAB // 2, SLAB), (SLAB, SLAB - 1)]
)
def test_sizes_that_make_no_sense(cuda: HostCuda, slab: int, maximum: int) -> None:
    with pytest.raises(ConfigError, match="export slabs"):
        SlabSet(cuda, cuda.gpus()[0], slab_bytes=slab, maximum_bytes=maximum)


def test_a_full_device_is_waited_for_unless_there_is_nothing_to_wait_for(cuda: HostCuda) -> None:
    slabs = slab_set(cuda, 100 * SLAB)
    occupied = cuda.malloc(7 * SLAB, 0)
    assert slabs.take(SLAB) is not None
    assert slabs.take(SLAB) is None
    late = slab_set(cuda)
    with pytest.raises(OverloadedError, match="out of GPU"):
        late.take(1)
    cuda.free(occupied)
    assert late.take(1) is not None


def test_shrinking(cuda: HostCuda) -> None:
    slabs = slab_set(cuda, SLAB)
    place = slabs.take(SLAB)
    kept = slabs.shrink(place, REGION_GRAIN_BYTES + 1)
    assert (kept.offset, kept.size_bytes) == (place.offset, 2 * REGION_GRAIN_BYTES)
    assert slabs.shrink(kept, 2 * REGION_GRAIN_BYTES) == kept
    with pytest.raises(ValueError, match="cannot shrink"):
        slabs.shrink(kept, 2 * REGION_GRAIN_BYTES + 1)
    rest = slabs.take(SLAB - 2 * REGION_GRAIN_BYTES)
    assert rest is not None
    slabs.give_back(kept)
    slabs.give_back(rest)
    assert slabs.free_bytes == SLAB


@given(st.lists(st.tuples(st.integers(1, SLAB), st.integers(0, 100)), max_size=40))
def test_regions_never_overlap(steps: list[tuple[int, int]]) -> None:
    cuda = HostCuda(4 * SLAB)
    slabs = slab_set(cuda)
    held: list[Place] = []
    for size, number in steps:
        place = slabs.take(size)
        if place is not None:
            assert place.size_bytes >= size
            assert place.address % REGION_GRAIN_BYTES == place.slab.address % REGION_GRAIN_BYTES
            held.append(place)
        if held and number % 3 == 0:
            slabs.give_back(held.pop(number % len(held)))
        elif held and number % 3 == 1:
            at = number % len(held)
            held[at] = slabs.shrink(held[at], 1 + number * held[at].size_bytes // 200)
        spans = sorted((place.address, place.address + place.size_bytes) for place in held)
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))
        assert slabs.free_bytes == slabs.held_bytes - sum(place.size_bytes for place in held)
        assert slabs.held_bytes <= slabs.maximum_bytes
    slabs.close()
    cuda.close()
