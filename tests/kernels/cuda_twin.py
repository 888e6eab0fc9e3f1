"""The CUDA twin in tests: simulated where NUMBA_ENABLE_CUDASIM=1, else on a device.

With ``PGFLIGHT_TEST_TWIN=cuda`` the other tests of this directory decode with it instead of the host twin; then a
device that cannot be used is a failure, else the tests that need one are skipped.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numba
import numpy as np
import pyarrow as pa
import pytest

from kernels import host
from kernels.backend import gpus_present
from kernels.layout import SCAN_FULL, WIRE_PAD_BYTES
from kernels.plan import Plan
from kernels.typing import Allocate, Backend
from tests.helpers import reading, wire
from tests.kernels import fuzz_replies, mutate
from tests.kernels.mutate import Recording

CHOSEN = os.environ.get("PGFLIGHT_TEST_TWIN") == "cuda"
if not (CHOSEN or numba.config.ENABLE_CUDASIM or gpus_present()):
    pytest.skip("no CUDA device, and not simulated", allow_module_level=True)

from kernels.cuda import SIMULATED, CudaDecoder, Geometry, StagedDecoder, allocate, is_available  # noqa: E402
from kernels.cuda.memory import download, upload  # noqa: E402, F401

assert is_available(), "there is a CUDA device, but it cannot be used"
STALE = 0xA5
ROUNDS = 1 if SIMULATED else 20
"""A device does in a second what the simulator does in minutes."""

SMALL = tuple(
    Geometry(segment_bytes=segment_bytes, threads=threads, sum_threads=sums, tile_rows=tile, gather_blocks=blocks)
    for segment_bytes, threads, sums, tile, blocks in (
        (64, 4, 1, 32, 1), (8, 2, 1, 64, 1), (256, 3, 2, 32, 2), (24, 4, 3, 32, 1), (1024, 1, 1, 96, 1),
    )
)  # fmt: skip
"""For the simulator, where each thread is one of the operating system's."""
LARGE = (
    Geometry(),
    Geometry(segment_bytes=64, threads=256, sum_threads=1024, tile_rows=256),
    Geometry(segment_bytes=8, threads=32, sum_threads=32, tile_rows=32, gather_blocks=1),
    Geometry(segment_bytes=4096, threads=96, sum_threads=96, tile_rows=160, gather_blocks=7),
)
GEOMETRIES = SMALL if SIMULATED else LARGE
_turns = itertools.cycle(GEOMETRIES)

every_framing = pytest.mark.parametrize("framing", wire.FRAMINGS)
every_geometry = pytest.mark.parametrize("geometry", GEOMETRIES)


@dataclass(frozen=True)
class StaleRegion:
    """Device memory that held something else before."""

    array: Any


def some(cases: Sequence[Any], every: int) -> Sequence[Any]:
    """Return all cases for a device, one in `every` for the simulator."""
    return cases[::every] if SIMULATED else cases


def stale(size_bytes: int) -> StaleRegion:
    """Allocate device memory full of old bytes, not one byte larger than asked for."""
    array = allocate(size_bytes).array
    upload(array, np.full(size_bytes, STALE, np.uint8), stream=0)
    return StaleRegion(array)


def on_device(received: bytes) -> Any:
    """Copy a block to the device; in its pad lies what would tempt a kernel that looks too far."""
    size = -(-(len(received) + WIRE_PAD_BYTES) // 8) * 8
    pad = (b"\1" + received[-9:] + b"\xff\xff\xff\xff" + received[:30] + b"d\0\0\0\6\xff\xff" * 20)[
        : size - len(received)
    ]
    array = stale(size).array
    upload(array, np.frombuffer(received + pad, np.uint8), stream=0)
    return array


def device_decoder(planned: Plan, framing: str, **options: Any) -> CudaDecoder:
    """Make a decoder of device blocks, with the next of the geometries."""
    options = {"batch_bytes": 1 << 20, "geometry": next(_turns)} | options
    return CudaDecoder(planned, stale, kind=wire.ROW_KINDS[framing][0], **options)


def decode_block(decoder: CudaDecoder, received: bytes) -> list[pa.RecordBatch]:
    """Scan and decode one block to its end; bring the batches back."""
    block = on_device(received)
    batches, position, reason = [], 0, SCAN_FULL
    while reason == SCAN_FULL:
        found = decoder.scan(block, position, len(received), stream=0)
        assert found.rows or found.reason != SCAN_FULL
        if found.rows:
            batches.append(decoder.decode(block, found, stream=0).to_host(wire.Memory, stream=0))
            batches[-1].validate(full=True)
        position, reason = found.position, found.reason
    return batches


def staged(
    planned: Plan, backend: Backend | None, allocate: Allocate, *, kind: int, batch_bytes: int
) -> StagedDecoder:
    """Stand in for `kernels.decoder.Decoder`."""
    return StagedDecoder(
        planned, allocate, stale, kind=kind, batch_bytes=batch_bytes, walk=host.scan, geometry=next(_turns)
    )


def make_decoder(
    planned: Plan, framing: str, batch_bytes: int = 1 << 20, allocate: Allocate = wire.Memory
) -> StagedDecoder:
    """Stand in for `wire.make_decoder`."""
    return staged(planned, None, allocate, kind=wire.ROW_KINDS[framing][0], batch_bytes=batch_bytes)


def take_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the helpers of all tests decode with this twin."""
    monkeypatch.setattr(wire, "make_decoder", make_decoder)
    monkeypatch.setattr(reading, "Decoder", staged)


@cache
def recordings(framing: str | None = None) -> list[Recording]:
    """Return the short golden recordings that have rows."""
    return [each for each in fuzz_replies.recordings() if each.name != "empty" and framing in {None, each.framing}]


def broken(seed: int, framing: str | None = None) -> tuple[Recording, bytes]:
    """Return a recording and what mutation made of its bytes, from about the first row on."""
    source = random.Random(f"cuda:{seed}")
    recording = source.choice(recordings(framing))
    kind = wire.ROW_KINDS[recording.framing][0]
    first = next(at for at in recording.starts if recording.bytes[at] == kind)
    return recording, mutate.mutated(source, recording, recordings())[first:]


def bytea_rows(values: list[bytes], framing: str) -> bytes:
    """Frame rows of one column, without a header."""
    return b"".join(wire.message(wire.ROW_KINDS[framing], wire.row([value])) for value in values)
