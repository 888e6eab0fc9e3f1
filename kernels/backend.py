"""Picks the twin of the kernels that serves: the only importer of kernels.host (and of kernels.cuda)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

import numba
import numpy as np

from kernels import host, wire
from kernels.column import Column
from kernels.decoder import Decoder
from kernels.errors import ConfigError
from kernels.plan import plan

BackendName = Literal["auto", "cpu", "gpu"]


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


def select_backend(wanted: BackendName = "auto") -> HostBackend:
    """Choose a twin and say why.

    Raises
    ------
    ConfigError
        The GPU is asked for by name and cannot be had.
    """
    if wanted == "gpu":
        raise ConfigError("decode=gpu: this version has no GPU kernels yet; use decode=cpu or auto")
    reason = "asked for" if wanted == "cpu" else "this version decodes on the CPU only"
    return HostBackend(reason=f"{reason} (Numba {numba.__version__})")


def is_compiled() -> bool:
    """Tell whether compiled kernels for exactly these sources are on disk."""
    directory = host.cache_directory()
    return directory.is_dir() and any(directory.rglob("*.nbi"))


class _Scratch:
    def __init__(self, size_bytes: int) -> None:
        self.array = np.zeros(-(-size_bytes // 64) * 64, np.uint8)


def warm_up(backend: HostBackend) -> float:
    """Compile or load every kernel by decoding one tiny block; return the seconds it took."""
    started = time.perf_counter()
    payload = b"\x00\x01\x00\x00\x00\x04\x00\x00\x00\x07"
    message = b"D" + (len(payload) + 4).to_bytes(4, "big") + payload
    block = np.zeros(len(message) + 64, np.uint8)
    block[: len(message)] = np.frombuffer(message, np.uint8)
    decoder = Decoder(plan([Column("warm", 23)]), backend, _Scratch, kind=wire.DATA_ROW, batch_bytes=1024)
    decoder.decode(block, decoder.scan(block, 0, len(message)))
    return time.perf_counter() - started
