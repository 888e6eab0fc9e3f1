"""The CUDA calls that reading device batches takes: the only importer of cuda.bindings."""

import ctypes
import importlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from pgflight.device.errors import DeviceError, GpuNotVisibleError, NoGpuError

IPC_HANDLE_BYTES = 64
_UNUSABLE = frozenset(
    f"cudaError{cause}"
    for cause in (
        "NoDevice", "InsufficientDriver", "InitializationError", "SystemDriverMismatch", "SystemNotReady",
        "CompatNotSupportedOnDevice", "DevicesUnavailable",
    )
)  # fmt: skip
_SAME_DRIVER = "server and client need the same driver, and the server must still run"


class Cuda:
    """The calls; without state of its own, safe to share between threads. Addresses are integers.

    Raises
    ------
    NoGpuError
        CUDA cannot be used; the text says what is missing.
    """

    def __init__(self) -> None:
        try:
            self._runtime: Any = importlib.import_module("cuda.bindings.runtime")
            self._driver: Any = importlib.import_module("cuda.bindings.driver")
        except ImportError as failure:
            raise NoGpuError(
                f"device batches need the extra: pip install 'pgflight[cuda13]' ({failure})"
            ) from None
        self._ordinals = self._find_gpus()

    def ordinal(self, gpu: str) -> int:
        """Return this process's number of the GPU with that UUID.

        Raises
        ------
        GpuNotVisibleError
            It has none.
        """
        if gpu not in self._ordinals:
            chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
            raise GpuNotVisibleError(
                f"the batch lies on {gpu}, which this process does not see; it sees {', '.join(self._ordinals)}"
                + ("" if chosen is None else f" (CUDA_VISIBLE_DEVICES={chosen})")
            )
        return self._ordinals[gpu]

    def open(self, handle: bytes, ordinal: int) -> int:
        """Map another process's allocation on a device and return its address."""
        packed = self._runtime.cudaIpcMemHandle_t()
        ctypes.memmove(packed.getPtr(), handle, IPC_HANDLE_BYTES)
        with self._on(ordinal):
            flags = self._runtime.cudaIpcMemLazyEnablePeerAccess
            return int(self._call("cudaIpcOpenMemHandle", packed, flags, hint=_SAME_DRIVER))

    def close(self, address: int, ordinal: int) -> None:
        """Undo `open`."""
        with self._on(ordinal):
            self._call("cudaIpcCloseMemHandle", address)

    def extent(self, address: int, ordinal: int) -> tuple[int, int]:
        """Return the address and the size in bytes of the allocation that an address lies in."""
        with self._on(ordinal):
            status, base, size = self._driver.cuMemGetAddressRange(address)
        if int(status):
            raise DeviceError(f"CUDA failed (cuMemGetAddressRange: {status.name})")
        return int(base), int(size)

    def synchronize(self, ordinal: int) -> None:
        """Wait for all that this process has queued on a device."""
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeRelaxed
        # Otherwise a graph that another thread is capturing would be spoilt.
        before = self._call("cudaThreadExchangeStreamCaptureMode", mode)
        try:
            with self._on(ordinal):
                self._call("cudaDeviceSynchronize")
        finally:
            self._call("cudaThreadExchangeStreamCaptureMode", before)

    def copy_to_host(self, target: int, source: int, size_bytes: int, ordinal: int) -> None:
        """Copy device memory to the host, and wait for it."""
        with self._on(ordinal):
            kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
            self._call("cudaMemcpy", target, source, size_bytes, kind)

    def _find_gpus(self) -> dict[str, int]:
        found = {}
        for ordinal in range(self._call("cudaGetDeviceCount")):
            facts = self._call("cudaGetDeviceProperties", ordinal)
            found[f"GPU-{uuid.UUID(bytes=bytes(facts.uuid.bytes))}"] = ordinal
        if not found:
            raise NoGpuError("CUDA cannot be used: no device is visible")
        return found

    @contextmanager
    def _on(self, ordinal: int) -> Iterator[None]:
        before = self._call("cudaGetDevice")
        self._call("cudaSetDevice", ordinal)
        try:
            yield
        finally:
            self._call("cudaSetDevice", before)

    def _call(self, name: str, *arguments: Any, hint: str = "") -> Any:
        status, *results = getattr(self._runtime, name)(*arguments)
        if int(status):
            if status.name in _UNUSABLE:
                raise NoGpuError(f"CUDA cannot be used ({name}: {status.name}): is there a driver and a device?")
            raise DeviceError(f"CUDA failed ({name}: {status.name})" + (f"; {hint}" if hint else ""))
        return results[0] if results else None


@cache
def cuda() -> Cuda:
    """Return the process's CUDA.

    Raises
    ------
    NoGpuError
        It cannot be used.
    """
    return Cuda()
