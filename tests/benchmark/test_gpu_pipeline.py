"""The GPU pipeline's benchmark, simulated: what it replays is what it says."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
from benchmark.gpu_kernels import SOURCES
from benchmark.gpu_pipeline import Replay
from flight_server.gpu.decoding import GpuOptions, Gpus
from kernels.backend import select_backend
from tests.flight_server.simulated_gpu import SMALL, HostAllocator
from tests.transport.device.host_cuda import HostCuda, host_view
import kernels.cuda.decoder

kernels.cuda.decoder.Geometry = lambda: SMALL
cuda = HostCuda()
gpus = Gpus(
    select_backend("gpu"), cuda, GpuOptions(block_mib=1, pinned_blocks=4, memory_mib=8),
    make_allocator=HostAllocator, make_view=host_view,
)
replay = Replay(gpus, SOURCES[1], 2048)
replay.require_equal()
assert 0 < replay.end <= 2048
assert replay.seconds(1, 2) > 0  # the simulator runs one kernel at a time
cuda.close()
"""


@pytest.mark.timeout(300)
def test_a_block_is_replayed() -> None:
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
