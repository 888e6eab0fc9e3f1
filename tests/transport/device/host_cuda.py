"""CUDA's memory calls over host memory: what the rules of pools, slabs and leases are tested with where no GPU is.

Allocations are files that are mapped, so that "another process maps a slab" is true here as well; streams and events
do what the test tells them.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from kernels.errors import OverloadedError
from transport.device.cuda import Cuda, Gpu

HANDLE_BYTES = 64


class HostCuda(Cuda):
    """One or more devices whose memory is the host's.

    Parameters
    ----------
    memory_bytes : int
        Of each device.
    devices : int
    """

    def __init__(self, memory_bytes: int = 1 << 30, devices: int = 1) -> None:
        self._gpus = tuple(
            Gpu(number, f"GPU-00000000-0000-0000-0000-00000000000{number}", "Host", memory_bytes)
            for number in range(devices)
        )
        self._files = tempfile.TemporaryDirectory(prefix="pgflight-host-cuda-")
        self._mapped: dict[int, tuple[mmap.mmap, Path, int, int]] = {}
        self._pinned: dict[int, np.ndarray] = {}
        self._numbers = itertools.count(1)
        self.events: dict[int, int | None] = {}
        """By event, the stream that it was last recorded on."""
        self.busy: set[int] = set()
        """Streams whose work is not done."""
        self.waits: list[tuple[int, int]] = []
        self.synchronized: list[int] = []
        self.device_synchronizations = 0
        self.lock = threading.Lock()

    def gpus(self) -> tuple[Gpu, ...]:
        return self._gpus

    @contextmanager
    def on(self, ordinal: int) -> Iterator[None]:
        assert 0 <= ordinal < len(self._gpus)
        yield

    def sleep_while_waiting(self, ordinal: int) -> None: ...

    @property
    def allocations(self) -> int:
        """Device and pinned allocations that are alive."""
        return len(self._mapped) + len(self._pinned)

    def memory(self, ordinal: int) -> tuple[int, int]:
        used = sum(size for _, _, device, size in self._mapped.values() if device == ordinal)
        return self._gpus[ordinal].memory_bytes - used, self._gpus[ordinal].memory_bytes

    def malloc(self, size_bytes: int, ordinal: int) -> int:
        if size_bytes > self.memory(ordinal)[0]:
            raise OverloadedError("out of GPU or pinned memory (cudaMalloc: cudaErrorMemoryAllocation)")
        path = Path(self._files.name) / str(next(self._numbers))
        path.touch()
        with path.open("r+b") as file:
            file.truncate(size_bytes)
            mapped = mmap.mmap(file.fileno(), size_bytes)
        address = np.frombuffer(mapped, np.uint8).ctypes.data
        self._mapped[address] = (mapped, path, ordinal, size_bytes)
        return address

    def free(self, address: int) -> None:
        _, path, _, _ = self._mapped.pop(address)
        path.unlink()

    def ipc_handle(self, address: int) -> bytes:
        return bytes(self._mapped[address][1]).ljust(HANDLE_BYTES, b"\0")

    def host_alloc(self, size_bytes: int) -> int:
        block = np.empty(size_bytes + 4096, np.uint8)
        address = -(-block.ctypes.data // 4096) * 4096
        self._pinned[address] = block
        return address

    def host_free(self, address: int) -> None:
        del self._pinned[address]

    def stream(self, ordinal: int) -> int:
        return next(self._numbers)

    def destroy_stream(self, stream: int) -> None: ...

    def synchronize(self, stream: int) -> None:
        self.busy.discard(stream)
        self.synchronized.append(stream)

    def synchronize_device(self, ordinal: int) -> None:
        self.busy.clear()
        self.device_synchronizations += 1

    def event(self, ordinal: int) -> int:
        event = next(self._numbers)
        self.events[event] = None
        return event

    def destroy_event(self, event: int) -> None:
        del self.events[event]

    def record(self, event: int, stream: int) -> None:
        self.events[event] = stream

    def done(self, event: int) -> bool:
        return self.events[event] not in self.busy

    def wait_for(self, event: int, stream: int) -> None:
        self.waits.append((event, stream))

    def copy_to_device(self, target: int, source: int, size_bytes: int, stream: int) -> None:
        ctypes.memmove(target, source, size_bytes)

    copy_to_host = copy_to_device
    copy_on_device = copy_to_device

    def close(self) -> None:
        """Remove the files."""
        self._files.cleanup()


def host_view(address: int, size_bytes: int, owner: object, ordinal: int) -> np.ndarray:
    """Return host memory as an array that keeps its owner."""
    memory = (ctypes.c_uint8 * size_bytes).from_address(address)
    memory.owner = owner
    return np.ctypeslib.as_array(memory)
