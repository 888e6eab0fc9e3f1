"""The server, with its kernels on Numba's simulator and its GPU memory in files: run as a module, with
NUMBA_ENABLE_CUDASIM=1.  All else is the server as it is.
"""

from __future__ import annotations

from functools import partial

import numpy as np

import flight_server.gpu.decoding
import flight_server.gpu.start
import flight_server.server
from flight_server.cli import main
from kernels.cuda import Geometry
from tests.transport.device.host_cuda import HostCuda, host_view
from transport.device.cuda import Gpu

SMALL = Geometry(segment_bytes=64, threads=4, sum_threads=2, tile_rows=32, gather_blocks=1)
"""Each thread of the simulator is one of the operating system's."""


class HostAllocator:
    """A device's pool, in host memory."""

    name = "host"

    def __init__(self, _gpu: Gpu, _initial_bytes: int, maximum_bytes: int) -> None:
        self.maximum_bytes = maximum_bytes

    def take(self, size_bytes: int, _stream: int) -> np.ndarray:
        words = np.empty(-(-size_bytes // 64) * 8, np.uint64)
        return words.view(np.uint8)[:size_bytes]

    def counts(self) -> tuple[int, int, int]:
        return 0, 0, self.maximum_bytes


def serve() -> None:
    import kernels.cuda.decoder  # noqa: PLC0415 (only where it is simulated)

    kernels.cuda.decoder.Geometry = lambda: SMALL
    flight_server.server.hide_tracebacks = lambda: None  # the simulator looks at the stack
    flight_server.gpu.start.cuda = HostCuda
    flight_server.gpu.start.Gpus = partial(
        flight_server.gpu.decoding.Gpus, make_allocator=HostAllocator, make_view=host_view
    )
    main()


if __name__ == "__main__":
    serve()
