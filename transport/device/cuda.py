"""The CUDA runtime as far as memory needs it: the only importer of cuda.bindings.

cuda.bindings rather than CuPy's runtime: every call lets the interpreter's other threads run (CuPy's ipc… and
eventQuery do not), errors are values, a UUID is 16 bytes, and RMM and numba-cuda bring the package along anyway.
Addresses, streams and events are plain integers here.
"""

from __future__ import annotations

import ctypes
import importlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from kernels.errors import ConfigError, OverloadedError, PgflightError

IPC_HANDLE_BYTES = 64
UNUSABLE = frozenset(
    f"cudaError{cause}"
    for cause in (
        "NoDevice", "InsufficientDriver", "InitializationError", "InvalidDevice", "SystemDriverMismatch",
        "SystemNotReady", "CompatNotSupportedOnDevice", "DevicesUnavailable",
    )
)  # fmt: skip
"""What says that there is no GPU to be had, rather than that something went wrong on one."""


class CudaError(PgflightError):
    """CUDA refused or failed: also errors of work that was queued earlier surface here."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU that this process may use.

    Parameters
    ----------
    ordinal : int
        Its number in this process: another process may number it otherwise.
    uuid : str
        Its name everywhere, as nvidia-smi writes it.
    name : str
        The model.
    memory_bytes : int
    """

    ordinal: int
    uuid: str
    name: str
    memory_bytes: int


class Cuda:
    """The calls; stateless, thread-safe.

    Raises
    ------
    ConfigError
        By the constructor, where CUDA cannot be used; it says what is missing.
    """

    def __init__(self) -> None:
        try:
            self._api: Any = importlib.import_module("cuda.bindings.runtime")
        except ImportError as failure:
            raise ConfigError(f"CUDA cannot be used: install pgflight-server[cuda13] ({failure})") from failure
        if not self._call("cudaGetDeviceCount"):
            raise ConfigError("CUDA cannot be used: no device is visible")

    def gpus(self) -> tuple[Gpu, ...]:
        """Return the GPUs that this process sees."""
        found = []
        for ordinal in range(self._call("cudaGetDeviceCount")):
            facts = self._call("cudaGetDeviceProperties", ordinal)
            name = f"GPU-{uuid.UUID(bytes=bytes(facts.uuid.bytes))}"
            found.append(Gpu(ordinal, name, facts.name.decode(), facts.totalGlobalMem))
        return tuple(found)

    @contextmanager
    def on(self, ordinal: int) -> Iterator[None]:
        """Make a device the calling thread's, for the length of a block."""
        before = self._call("cudaGetDevice")
        self._call("cudaSetDevice", ordinal)
        try:
            yield
        finally:
            self._call("cudaSetDevice", before)

    def driver_version(self) -> int:
        """Return the newest CUDA that the driver serves: 13010 is 13.1."""
        return int(self._call("cudaDriverGetVersion"))

    def sleep_while_waiting(self, ordinal: int) -> None:
        """Have threads that wait for a device sleep: by default they spin on cores that PostgreSQL needs."""
        with self.on(ordinal):
            self._call("cudaSetDeviceFlags", self._api.cudaDeviceScheduleBlockingSync)

    def memory(self, ordinal: int) -> tuple[int, int]:
        """Return a device's free and total bytes."""
        with self.on(ordinal):
            free, total = self._call("cudaMemGetInfo")
        return free, total

    def malloc(self, size_bytes: int, ordinal: int) -> int:
        """Allocate device memory by plain cudaMalloc: the one kind whose handles other processes can open.

        Raises
        ------
        OverloadedError
            The device has not so much left.
        """
        with self.on(ordinal):
            return int(self._call("cudaMalloc", size_bytes))

    def free(self, address: int) -> None:
        """Free what `malloc` returned."""
        self._call("cudaFree", address)

    def ipc_handle(self, address: int) -> bytes:
        """Return the handle by which another process can map an allocation of `malloc`."""
        handle = self._call("cudaIpcGetMemHandle", address)
        # The attribute that holds the bytes comes and goes between releases.
        return ctypes.string_at(handle.getPtr(), IPC_HANDLE_BYTES)

    def host_alloc(self, size_bytes: int) -> int:
        """Allocate page-locked host memory, page-aligned, for all devices; not write-combined: it is read."""
        return int(self._call("cudaHostAlloc", size_bytes, self._api.cudaHostAllocPortable))

    def host_free(self, address: int) -> None:
        """Free what `host_alloc` returned."""
        self._call("cudaFreeHost", address)

    def stream(self, ordinal: int) -> int:
        """Create a stream that does not wait for the default stream."""
        with self.on(ordinal):
            return int(self._call("cudaStreamCreateWithFlags", self._api.cudaStreamNonBlocking))

    def destroy_stream(self, stream: int) -> None:
        """Destroy a stream once its work is done."""
        self._call("cudaStreamDestroy", stream)

    def synchronize(self, stream: int) -> None:
        """Wait for all that a stream has queued; 0 is the default stream of the current device."""
        self._call("cudaStreamSynchronize", stream)

    def synchronize_device(self, ordinal: int) -> None:
        """Wait for all that this process has queued on a device."""
        with self.on(ordinal):
            self._call("cudaDeviceSynchronize")

    def event(self, ordinal: int) -> int:
        """Create an event for `record`; it does not measure time."""
        with self.on(ordinal):
            return int(self._call("cudaEventCreateWithFlags", self._api.cudaEventDisableTiming))

    def destroy_event(self, event: int) -> None:
        """Destroy an event."""
        self._call("cudaEventDestroy", event)

    def record(self, event: int, stream: int) -> None:
        """Set an event behind all that a stream of its device has queued."""
        self._call("cudaEventRecord", event, stream)

    def done(self, event: int) -> bool:
        """Tell whether an event has been passed."""
        status, *_ = self._api.cudaEventQuery(event)
        if status == self._api.cudaError_t.cudaErrorNotReady:
            return False
        self._require(status, "cudaEventQuery")
        return True

    def wait_for(self, event: int, stream: int) -> None:
        """Have a stream wait for an event before its next work."""
        self._call("cudaStreamWaitEvent", stream, event, 0)

    def copy_to_device(self, target: int, source: int, size_bytes: int, stream: int) -> None:
        """Queue a copy from host memory, which must stay unchanged until the stream has come past it."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", target, source, size_bytes, kind, stream)

    def copy_to_host(self, target: int, source: int, size_bytes: int, stream: int) -> None:
        """Queue a copy to host memory."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", target, source, size_bytes, kind, stream)

    def copy_on_device(self, target: int, source: int, size_bytes: int, stream: int) -> None:
        """Queue a copy within a device, or between two."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self._call("cudaMemcpyAsync", target, source, size_bytes, kind, stream)

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call, raise what went wrong, return the result: None, one value or a tuple."""
        status, *results = getattr(self._api, name)(*arguments)
        self._require(status, name)
        return results[0] if len(results) == 1 else tuple(results) or None

    def _require(self, status: Any, call: str) -> None:
        if int(status) == 0:
            return
        text = f"{call}: {status.name}"
        if status.name == "cudaErrorMemoryAllocation":
            raise OverloadedError(f"out of GPU or pinned memory ({text})")
        if status.name in UNUSABLE:
            raise ConfigError(f"CUDA cannot be used ({text}): is there an NVIDIA driver and a device?")
        raise CudaError(f"CUDA failed ({text})")


@cache
def cuda() -> Cuda:
    """Return the process's CUDA runtime.

    Raises
    ------
    ConfigError
        It cannot be used here.
    """
    return Cuda()
