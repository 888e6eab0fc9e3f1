"""Decoding on GPUs: pinned blocks go there, batches come back."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from flight_server.gpu.blocks import BlockTwin
from flight_server.reading.decoding import Consumer
from flight_server.reading.replies import RowDecoder
from kernels import wire
from kernels.backend import CudaBackend
from kernels.decoder import Scan
from kernels.errors import ConfigError
from kernels.plan import Plan
from kernels.typing import Allocate, DeviceAllocate, DeviceRegion, Uint8s
from transport.device.arrays import View, view
from transport.device.cuda import Cuda, Gpu
from transport.device.pinned import PinnedPool
from transport.device.pool import Allocator, DevicePool, allocator
from transport.modes.counters import Counters
from transport.modes.device import GpuSide

MIB = 1 << 20
GPU_PATIENCE_S = 0.5
"""A block costs the same few launches whatever it holds: full ones are worth waiting for."""


@dataclass(frozen=True, slots=True)
class GpuOptions:
    """What the server may use of the GPUs.

    Parameters
    ----------
    gpus : str
        ``all``, or ordinals and UUIDs with commas between.
    block_mib : int
        Size of the pinned blocks that are received into and copied, a power of two.
    pinned_blocks : int
        How many there are, for blocks and for batches on their way back.
    memory_mib : int
        Memory for decoding on each GPU.
    """

    gpus: str = "all"
    block_mib: int = 64
    pinned_blocks: int = 64
    memory_mib: int = 4096


def chosen_gpus(cuda: Cuda, wanted: str) -> tuple[Gpu, ...]:
    """Return the GPUs that a setting names.

    Raises
    ------
    ConfigError
        One of them is not there.
    """
    seen = cuda.gpus()
    if wanted == "all":
        return seen
    names = {name: gpu for gpu in seen for name in (str(gpu.ordinal), gpu.uuid)}
    missing = [name for name in _split(wanted) if name not in names]
    if missing:
        known = ", ".join(f"{gpu.ordinal} ({gpu.uuid})" for gpu in seen)
        raise ConfigError(f"gpus: there is no GPU {missing[0]!r}; there are: {known}")
    return tuple(dict.fromkeys(names[name] for name in _split(wanted)))


class Gpus:
    """The GPUs that decode: their memory, their streams, and the pinned blocks they are fed from.  Thread-safe.

    Parameters
    ----------
    backend : CudaBackend
    cuda : Cuda
    options : GpuOptions
    make_allocator : callable
        Makes a device's allocator.
    make_view : callable
        Makes arrays over addresses.
    """

    def __init__(
        self,
        backend: CudaBackend,
        cuda: Cuda,
        options: GpuOptions,
        *,
        make_allocator: Callable[[Gpu, int, int], Allocator] = allocator,
        make_view: View = view,
    ) -> None:
        self.cuda = cuda
        self.make_view = make_view
        self.block_bytes = options.block_mib * MIB
        self.pinned = PinnedPool(cuda, block_mib=options.block_mib, blocks=options.pinned_blocks)
        maximum = options.memory_mib * MIB
        chosen = chosen_gpus(cuda, options.gpus)
        for gpu in chosen:
            cuda.sleep_while_waiting(gpu.ordinal)
        self.pools = tuple(
            DevicePool(cuda, gpu, initial_bytes=maximum // 4, maximum_bytes=maximum, make=make_allocator)
            for gpu in chosen
        )
        self._backend = backend
        self._turn = itertools.cycle(self.pools)
        self._streams: dict[int, list[int]] = {pool.gpu.ordinal: [] for pool in self.pools}
        self._lock = threading.Lock()

    def next(self) -> DevicePool:
        """Return the memory of the GPU whose turn it is: streams are dealt over all."""
        with self._lock:
            return next(self._turn)

    def twin(
        self,
        planned: Plan,
        pool: DevicePool,
        stream: int,
        *,
        copy: bool,
        batch_bytes: int,
        batch_allocate: DeviceAllocate | None = None,
    ) -> Any:
        """Make the kernels' own decoder of device blocks, with memory that is ready on a stream."""

        def device_memory(size_bytes: int) -> DeviceRegion:
            return pool.allocate(size_bytes, stream=stream)

        return self._backend.device_decoder(
            planned,
            device_memory,
            kind=wire.COPY_DATA if copy else wire.DATA_ROW,
            batch_bytes=batch_bytes,
            batch_allocate=batch_allocate,
        )

    def take_stream(self, ordinal: int) -> int:
        """Lend a stream of a device: streams outlive the memory that was used on them, so they are kept."""
        with self._lock:
            free = self._streams[ordinal]
            if free:
                return free.pop()
        return self.cuda.stream(ordinal)

    def give_back_stream(self, ordinal: int, stream: int) -> None:
        """Take a stream back."""
        with self._lock:
            self._streams[ordinal].append(stream)


class GpuDecoding:
    """Decodes on GPUs, for clients that take host batches.

    Parameters
    ----------
    gpus : Gpus
    """

    patience_s = GPU_PATIENCE_S

    def __init__(self, gpus: Gpus) -> None:
        self._gpus = gpus

    @property
    def allocate(self) -> Allocate:
        """Where blocks come from."""
        return self._gpus.pinned.allocate

    @property
    def facts(self) -> dict[str, Any]:
        """What a FlightInfo says of it."""
        return {"decode": "gpu"}

    def block_bytes(self, batch_bytes: int) -> int:
        """Return the size of pinned blocks."""
        return max(self._gpus.block_bytes, batch_bytes)

    def piece_bytes(self, batch_bytes: int) -> int:
        """Return the batch's size: a block holds many batches."""
        return batch_bytes

    def decoder(
        self,
        planned: Plan,
        *,
        copy: bool,
        batch_bytes: int,
        consumer: Consumer,
    ) -> RowDecoder:
        """Make a decoder for the replies of one session, on the GPU whose turn it is."""
        return FetchingDecoder(
            self._gpus,
            self._gpus.next(),
            planned,
            copy=copy,
            batch_bytes=self.block_bytes(batch_bytes),
            counters=consumer.new_counters(),
        )


class GpuDecoder:
    """Decodes the replies of one session on one GPU, on a stream of its own.

    Parameters
    ----------
    gpus : Gpus
    pool : DevicePool
        Of the GPU.
    planned : Plan
    copy : bool
    batch_bytes : int
    counters : Counters
        Of what is copied to the GPU.
    batch_allocate : DeviceAllocate, optional
        Where batches are made that stay on the device.
    """

    def __init__(
        self,
        gpus: Gpus,
        pool: DevicePool,
        planned: Plan,
        *,
        copy: bool,
        batch_bytes: int,
        counters: Counters,
        batch_allocate: DeviceAllocate | None = None,
    ) -> None:
        self._gpus = gpus
        self._ordinal = pool.gpu.ordinal
        self._stream = gpus.take_stream(self._ordinal)
        self.side = GpuSide(gpus.cuda, pool, self._stream)
        with gpus.cuda.on(self._ordinal):
            twin = gpus.twin(
                planned, pool, self._stream, copy=copy, batch_bytes=batch_bytes, batch_allocate=batch_allocate
            )
            self._twin = BlockTwin(twin, self.side, gpus.pinned.allocate, self._stream, counters)

    def __del__(self) -> None:
        if hasattr(self, "_stream"):  # else there was none to be had
            self._gpus.give_back_stream(self._ordinal, self._stream)

    @property
    def rows(self) -> int:
        """Rows decoded so far."""
        return self._twin.rows

    def expect_header(self) -> None:
        """Begin a reply."""
        self._twin.expect_header()

    def scan(self, block: Uint8s, begin: int, end: int, base: int = 0) -> Scan:
        """Copy the block to the GPU and find its rows there."""
        with self._gpus.cuda.on(self._ordinal):
            return self._twin.scan(block, begin, end, base)


class FetchingDecoder(GpuDecoder):
    """Brings the batches back to the host."""

    def decode(self, _block: Uint8s, found: Scan, base: int = 0) -> pa.RecordBatch:
        """Decode the rows of the last scan, and bring them back."""
        with self._gpus.cuda.on(self._ordinal):
            return self._twin.decode(found, base)


def _split(wanted: str) -> list[str]:
    return [name.strip() for name in wanted.split(",") if name.strip()]
