"""Where rows are decoded: on the CPU, or on GPUs; the twin of the kernels, and the memory it works in."""

from __future__ import annotations

from typing import Protocol

from flight_server.options import ReadOptions
from flight_server.replies import RowDecoder
from kernels import wire
from kernels.backend import HostBackend
from kernels.errors import RequestError
from kernels.plan import Plan
from kernels.typing import Allocate
from transport.memory import RegionPool

HOST_PATIENCE_S = 0.05


class Decoding(Protocol):
    """Makes the decoders of reads, and says what blocks they like."""

    @property
    def allocate(self) -> Allocate:
        """Where blocks come from."""

    @property
    def patience_s(self) -> float:
        """How long a block that has begun to fill may wait to be full, once the first one was handed on."""

    def block_bytes(self, batch_bytes: int) -> int:
        """Return the size of blocks for batches of some size."""

    def piece_bytes(self, batch_bytes: int) -> int | None:
        """Return to what size decoded batches must be cut; None where they have it."""

    def decoder(self, planned: Plan, *, copy: bool, batch_bytes: int) -> RowDecoder:
        """Make a decoder for the replies of one session."""


class HostDecoding:
    """Decodes on the CPU.

    Parameters
    ----------
    backend : HostBackend
    memory : RegionPool
        Of blocks and batches.
    """

    patience_s = HOST_PATIENCE_S

    def __init__(self, backend: HostBackend, memory: RegionPool) -> None:
        self._backend = backend
        self._memory = memory

    @property
    def allocate(self) -> Allocate:
        """Where blocks come from."""
        return self._memory.allocate

    def block_bytes(self, batch_bytes: int) -> int:
        """Return the batch's own size: what is decoded at once stays in the cache."""
        return batch_bytes

    def piece_bytes(self, batch_bytes: int) -> None:
        """Return nothing: batches come in the size wanted."""

    def decoder(self, planned: Plan, *, copy: bool, batch_bytes: int) -> RowDecoder:
        """Make a decoder for the replies of one session."""
        kind = wire.COPY_DATA if copy else wire.DATA_ROW
        return self._backend.decoder(planned, self._memory.allocate, kind=kind, batch_bytes=batch_bytes)


class Decodings:
    """What this server can decode with, and what it takes by default.

    Parameters
    ----------
    host : Decoding
    gpu : Decoding, optional
    prefer_gpu : bool
        What ``decode=auto`` means here.
    """

    def __init__(self, host: Decoding, gpu: Decoding | None = None, *, prefer_gpu: bool = False) -> None:
        self._host = host
        self._gpu = gpu
        self._prefer_gpu = prefer_gpu

    def choose(self, options: ReadOptions) -> Decoding:
        """Return where a read is decoded.

        Raises
        ------
        RequestError
            On the GPU, which this server does not use.
        """
        if options.decode == "gpu" and self._gpu is None:
            raise RequestError("decode=gpu: this server decodes on the CPU (its setting decode is not gpu)")
        wanted = options.decode == "gpu" or (options.decode == "auto" and self._prefer_gpu)
        return self._gpu if wanted and self._gpu is not None else self._host
