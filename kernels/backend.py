"""Picks the twin of the kernels that serves: the only importer of kernels.host and of kernels.cuda."""

from __future__ import annotations

import importlib
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numba
import numpy as np

from kernels import host, wire
from kernels.column import Column
from kernels.decoder import Decoder
from kernels.errors import ConfigError
from kernels.plan import Plan, plan
from kernels.typing import Allocate, DeviceAllocate
from kernels.unframed import UnframedDecoder

if TYPE_CHECKING:
    from kernels.cuda import CudaDecoder, StagedDecoder

BackendName = Literal["auto", "cpu", "gpu"]

CUDA_PACKAGES = ("numba_cuda", "cupy")


@dataclass(frozen=True, slots=True)
class HostBackend:
    """The kernels compiled for the CPU."""

    reason: str
    name: str = "cpu"

    @property
    def scan(self) -> Any:
        """Find the rows of a block."""
        return host.scan

    @property
    def decode(self) -> Any:
        """Decode the rows of a block into an arena."""
        return host.decode

    @property
    def encode(self) -> Any:
        """The kernels that write rows for COPY BINARY."""
        return host.encode

    @property
    def survey(self) -> Any:
        """Find the parts of nested columns."""
        return host.survey

    @property
    def decode_parts(self) -> Any:
        """Decode them into the arena."""
        return host.decode_parts

    def decoder(self, planned: Plan, allocate: Allocate, *, kind: int, batch_bytes: int) -> Decoder:
        """Make a decoder of host blocks."""
        return Decoder(planned, self, allocate, kind=kind, batch_bytes=batch_bytes)

    def unframed_decoder(self, planned: Plan, allocate: Allocate, *, batch_bytes: int) -> UnframedDecoder:
        """Make a decoder of files that PostgreSQL's COPY wrote."""
        return UnframedDecoder(planned, self, allocate, host.scan_tuples, batch_bytes=batch_bytes)


@dataclass(frozen=True, slots=True)
class CudaBackend:
    """The kernels compiled for the GPU, and the host's walk where theirs is slow.

    Parameters
    ----------
    reason : str
    twin : module
        kernels.cuda, which only this module imports, and only where it is asked for.
    """

    reason: str
    twin: Any
    name: str = "cuda"

    @property
    def scan(self) -> Any:
        """Find the rows of a device block."""
        return self.twin.scan

    @property
    def decode(self) -> Any:
        """Decode the rows of a device block into a device arena."""
        return self.twin.decode

    def decoder(
        self,
        planned: Plan,
        allocate: Allocate,
        *,
        kind: int,
        batch_bytes: int,
        device_allocate: DeviceAllocate | None = None,
        batch_allocate: DeviceAllocate | None = None,
        stream: int = 0,
    ) -> StagedDecoder:
        """Make a decoder of host blocks, which copies them to the device and, where that is wanted, batches back.

        Device memory is CuPy's where no other is given; it must be ready in the order of `stream`.
        """
        twin = self.twin
        decoder: StagedDecoder = twin.StagedDecoder(
            planned, allocate, device_allocate or twin.allocate,
            kind=kind, batch_bytes=batch_bytes, walk=host.scan, stream=stream, batch_allocate=batch_allocate,
        )  # fmt: skip
        return decoder

    def device_decoder(
        self,
        planned: Plan,
        allocate: DeviceAllocate | None = None,
        *,
        kind: int,
        batch_bytes: int,
        batch_allocate: DeviceAllocate | None = None,
    ) -> CudaDecoder:
        """Make a decoder of device blocks; the memory is CuPy's where no other is given."""
        twin = self.twin
        decoder: CudaDecoder = twin.CudaDecoder(
            planned,
            allocate or twin.allocate,
            kind=kind,
            batch_bytes=batch_bytes,
            walk=host.scan,
            batch_allocate=batch_allocate,
        )
        return decoder


@overload
def select_backend(wanted: Literal["auto", "cpu"] = "auto") -> HostBackend: ...
@overload
def select_backend(wanted: Literal["gpu"]) -> CudaBackend: ...
@overload
def select_backend(wanted: BackendName) -> HostBackend | CudaBackend: ...
def select_backend(wanted: BackendName = "auto") -> HostBackend | CudaBackend:
    """Choose a twin and say why.

    Raises
    ------
    ConfigError
        The GPU is asked for by name and cannot be had.
    """
    versions = f"(Numba {numba.__version__})"
    if wanted == "gpu":
        twin = _cuda_twin()
        return CudaBackend(f"asked for, on {twin.device_name()} {versions}", twin)
    if wanted == "cpu":
        return HostBackend(f"asked for {versions}")
    seen = "a GPU is present: decode=gpu would use it" if gpus_present() else "no GPU is present"
    return HostBackend(f"auto decodes on the CPU; {seen} {versions}")


def gpus_present() -> int:
    """Return how many NVIDIA GPUs this process may open; looking for them starts nothing."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def _cuda_twin() -> Any:
    """Import kernels.cuda, or say why it is of no use here."""
    missing = [name for name in CUDA_PACKAGES if find_spec(name) is None]
    if missing:
        raise ConfigError(f"decode=gpu: {' and '.join(missing)} cannot be imported; use decode=cpu or auto")
    twin = importlib.import_module("kernels.cuda")
    if not twin.is_available():
        seen = f"devices: {gpus_present()}, but the driver does not start" if gpus_present() else "there is none"
        raise ConfigError(f"decode=gpu: no CUDA device can be used ({seen}); use decode=cpu or auto")
    return twin


def is_compiled() -> bool:
    """Tell whether compiled kernels for exactly these sources are on disk."""
    directory = host.cache_directory()
    return directory.is_dir() and any(directory.rglob("*.nbi"))


class _Scratch:
    def __init__(self, size_bytes: int) -> None:
        self.array = np.zeros(-(-size_bytes // 64) * 64, np.uint8)


def warm_up(backend: HostBackend | CudaBackend) -> float:
    """Compile or load every kernel by decoding one tiny block; return the seconds it took."""
    started = time.perf_counter()
    fields = (b"\0\0\0\7", b"ok", b"\0\0\0\0\0\0\0\0\0\0\0\x17", b"\0\1\0\0\0\0\0\0")
    body = b"".join(len(value).to_bytes(4, "big") + value for value in fields)
    message = b"D" + (len(body) + 6).to_bytes(4, "big") + len(fields).to_bytes(2, "big") + body
    block = np.zeros(len(message) + 64, np.uint8)
    block[: len(message)] = np.frombuffer(message, np.uint8)
    number, text = Column("number", 23), Column("text", 25)
    array = Column("array", 1007, category="A", send="array_send", parts=(number,))
    vector = Column("vector", 1, 1, type_name="vector", send="vector_send")
    planned = plan([number, text, array, vector])
    decoder = backend.decoder(planned, _Scratch, kind=wire.DATA_ROW, batch_bytes=1024)
    decoder.decode(block, decoder.scan(block, 0, len(message)))
    return time.perf_counter() - started
