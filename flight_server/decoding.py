"""Where rows are decoded: the twin of the kernels, and the memory it works in."""

from __future__ import annotations

from flight_server.replies import RowDecoder
from kernels import wire
from kernels.backend import CudaBackend, HostBackend
from kernels.plan import Plan
from kernels.typing import Allocate
from transport.memory import RegionPool


class Decoding:
    """Makes the decoders of reads.

    Parameters
    ----------
    backend : HostBackend or CudaBackend
    memory : RegionPool
        Of blocks and batches.
    """

    def __init__(self, backend: HostBackend | CudaBackend, memory: RegionPool) -> None:
        self._backend = backend
        self._memory = memory

    @property
    def allocate(self) -> Allocate:
        """Where blocks come from."""
        return self._memory.allocate

    def decoder(self, planned: Plan, *, copy: bool, batch_bytes: int) -> RowDecoder:
        """Make a decoder for the replies of one session."""
        kind = wire.COPY_DATA if copy else wire.DATA_ROW
        return self._backend.decoder(planned, self._memory.allocate, kind=kind, batch_bytes=batch_bytes)
