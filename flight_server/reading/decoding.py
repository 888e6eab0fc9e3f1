"""Where rows are decoded: on the CPU, or on GPUs; the twin of the kernels, and the memory it works in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from flight_server.options import ReadOptions
from flight_server.reading.replies import RowDecoder
from kernels import wire
from kernels.backend import HostBackend
from kernels.errors import RequestError
from kernels.plan import Plan
from kernels.typing import Allocate
from transport.memory import RegionPool
from transport.modes.counters import Counters
from transport.modes.device import DeviceSide

HOST_PATIENCE_S = 0.05


@dataclass(frozen=True, slots=True)
class Consumer:
    """Who takes the batches of one stream of a read.

    Parameters
    ----------
    check : callable
        Called at least every 0.1 s while waiting on its behalf; raises to give up.
    lease : str
        ``<client>.<stream>`` of its lease connection, for batches that stay in GPU memory.
    new_counters : callable
        Makes the counters of what is copied to a GPU.
    """

    check: Callable[[], None]
    lease: str = ""
    new_counters: Callable[[], Counters] = Counters


class Decoding(Protocol):
    """Makes the decoders of reads, and says what blocks they like."""

    @property
    def allocate(self) -> Allocate:
        """Where blocks come from."""

    @property
    def patience_s(self) -> float:
        """How long a block that has begun to fill may wait to be full, once the first one was handed on."""

    @property
    def facts(self) -> dict[str, Any]:
        """What a FlightInfo says of it."""

    def block_bytes(self, batch_bytes: int) -> int:
        """Return the size of blocks for batches of some size."""

    def piece_bytes(self, batch_bytes: int) -> int | None:
        """Return to what size decoded batches must be cut; None where they have it."""

    def decoder(self, planned: Plan, *, copy: bool, batch_bytes: int, consumer: Consumer) -> RowDecoder:
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

    @property
    def facts(self) -> dict[str, Any]:
        """What a FlightInfo says of it."""
        return {"decode": "cpu"}

    def block_bytes(self, batch_bytes: int) -> int:
        """Return the batch's own size: what is decoded at once stays in the cache."""
        return batch_bytes

    def piece_bytes(self, batch_bytes: int) -> None:
        """Return nothing: batches come in the size wanted."""

    def decoder(
        self,
        planned: Plan,
        *,
        copy: bool,
        batch_bytes: int,
        consumer: Consumer,  # noqa: ARG002 (batches go where everything goes)
    ) -> RowDecoder:
        """Make a decoder for the replies of one session."""
        kind = wire.COPY_DATA if copy else wire.DATA_ROW
        return self._backend.decoder(planned, self._memory.allocate, kind=kind, batch_bytes=batch_bytes)

    def unframed_decoder(self, planned: Plan, *, batch_bytes: int) -> RowDecoder:
        """Make a decoder of files that PostgreSQL's COPY wrote."""
        return self._backend.unframed_decoder(planned, self._memory.allocate, batch_bytes=batch_bytes)


def side_of(decoder: RowDecoder) -> DeviceSide | None:
    """Return the GPU's stream that a decoder works on; None for one of the host."""
    side: DeviceSide | None = getattr(decoder, "side", None)
    return side


class GpuDecodings(Protocol):
    """What the GPUs of this host do for reads."""

    def fetched(self) -> Decoding:
        """Return the decoding whose batches come back to the host."""

    def lent(self) -> Decoding:
        """Return the decoding whose batches stay on the GPU, lent to a client on this host."""


class Decodings:
    """What this server can decode with, and what it takes by default.

    Parameters
    ----------
    host : Decoding
    gpu : GpuDecodings, optional
    prefer_gpu : bool
        What ``decode=auto`` means here, for clients that take host batches.
    why : str
        Why there is no GPU, for those who ask for one.
    """

    def __init__(
        self,
        host: Decoding,
        gpu: GpuDecodings | None = None,
        *,
        prefer_gpu: bool = False,
        why: str = "this server decodes on the CPU",
    ) -> None:
        self._host = host
        self._gpu = gpu
        self._prefer_gpu = prefer_gpu
        self._why = why

    def choose(self, options: ReadOptions) -> Decoding:
        """Return where a read is decoded.

        Raises
        ------
        RequestError
            On a GPU, which this server does not use.
        """
        if options.output == "cuda-ipc":
            if options.decode == "cpu":
                raise RequestError("output=cuda-ipc: batches in GPU memory are decoded there, not with decode=cpu")
            return self._required("output=cuda-ipc").lent()
        if options.decode == "gpu":
            return self._required("decode=gpu").fetched()
        if options.decode == "auto" and self._prefer_gpu:
            return self._required("decode=auto").fetched()
        return self._host

    def _required(self, wanted: str) -> GpuDecodings:
        if self._gpu is None:
            raise RequestError(f"{wanted}: {self._why}")
        return self._gpu
