"""Batches that stay in GPU memory: decoded into a slab, lent to a client on this host, described over Flight."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from flight_server.gpu.decoding import GPU_PATIENCE_S, MIB, GpuDecoder, GpuDecoding, Gpus
from flight_server.reading.decoding import Consumer
from kernels.decoder import Scan
from kernels.errors import RequestError
from kernels.extents import Extents
from kernels.plan import Plan
from kernels.typing import Allocate, Uint8s
from transport.device.descriptor import ColumnExtents
from transport.device.exports import Exports, ExportStatistics, ExportStream
from transport.device.leases import LeaseServer, LeaseSocket
from transport.device.ledger import LeaseLimits
from transport.device.pool import DevicePool
from transport.device.protocol import parse_reader
from transport.device.slabs import SlabSet
from transport.modes.counters import Counters


@dataclass(frozen=True, slots=True)
class LendingOptions:
    """What may be lent.

    Parameters
    ----------
    memory_mib : int
        For lent batches on each GPU.
    slab_mib : int
        Size of the allocations it is made of; the largest batch.
    client_mib : int
        What one client may hold.
    lease_s : float
        How long a lease is good for.
    socket : Path, optional
        Where clients give leases back; in a directory of its own by default.
    """

    memory_mib: int = 4096
    slab_mib: int = 256
    client_mib: int = 2048
    lease_s: float = 600.0
    socket: Path | None = None


@dataclass(frozen=True, slots=True)
class LentBatch:
    """A batch that its client reads in GPU memory; what is sent is an empty batch with its description.

    Parameters
    ----------
    empty : RecordBatch
        One without rows, of the read's schema.
    num_rows : int
    app_metadata : bytes
        The description.
    """

    empty: pa.RecordBatch
    num_rows: int
    app_metadata: bytes

    def on_wire(self) -> tuple[pa.RecordBatch, pa.Buffer]:
        """Return what Flight sends."""
        return self.empty, pa.py_buffer(self.app_metadata)


class Lending:
    """Lends batches to clients on this host.

    Parameters
    ----------
    gpus : Gpus
    options : LendingOptions

    Raises
    ------
    ConfigError
        The lease socket cannot be had, or the sizes make no sense.
    """

    patience_s = GPU_PATIENCE_S

    def __init__(self, gpus: Gpus, options: LendingOptions) -> None:
        self._gpus = gpus
        slabs = [
            SlabSet(
                gpus.cuda,
                pool.gpu,
                slab_bytes=options.slab_mib * MIB,
                maximum_bytes=options.memory_mib * MIB,
            )
            for pool in gpus.pools
        ]
        limits = LeaseLimits(lease_s=options.lease_s, client_bytes=options.client_mib * MIB)
        listener = LeaseSocket(options.socket)
        self._exports = Exports(gpus.cuda, slabs, limits, socket=str(listener.path), make_view=gpus.make_view)
        self._server = LeaseServer(listener, self._exports)

    @property
    def allocate(self) -> Allocate:
        """Where blocks come from."""
        return self._gpus.pinned.allocate

    @property
    def facts(self) -> dict[str, Any]:
        """What a FlightInfo says of it: a client needs it to be lent anything."""
        return {"decode": "gpu", "leases": self._server.offer()}

    @property
    def statistics(self) -> ExportStatistics:
        """What is lent now."""
        return self._exports.statistics()

    def block_bytes(self, batch_bytes: int) -> int:
        """Return the size of pinned blocks: a batch is what a block holds."""
        return max(self._gpus.block_bytes, batch_bytes)

    def piece_bytes(self, batch_bytes: int) -> None:
        """Return nothing: batches are not cut."""

    def decoder(self, planned: Plan, *, copy: bool, batch_bytes: int, consumer: Consumer) -> LendingDecoder:
        """Make a decoder for the replies of one session, on the GPU whose turn it is.

        Raises
        ------
        RequestError
            The client has no lease connection.
        """
        if not consumer.lease:
            raise RequestError(
                "output=cuda-ipc: the client has not said by which lease connection it takes device batches "
                "(header pgflight-lease); read with pgflight's device_batches(), or ask for output=host"
            )
        client, number = parse_reader(consumer.lease)
        pool = self._gpus.next()
        stream = self._exports.stream(client, number, pool.gpu.ordinal, consumer.check)
        return LendingDecoder(
            self._gpus,
            pool,
            planned,
            stream,
            copy=copy,
            batch_bytes=self.block_bytes(batch_bytes),
            counters=consumer.new_counters(),
        )

    def close(self) -> None:
        """Lend nothing more, and give back what nobody can be reading."""
        self._exports.close()
        self._server.close()


class LendingDecoder(GpuDecoder):
    """Decodes into slabs, and lends what it has decoded.

    Parameters
    ----------
    gpus, pool, planned, copy, batch_bytes, counters
        As for `GpuDecoder`.
    exports : ExportStream
        The client's.
    """

    def __init__(
        self,
        gpus: Gpus,
        pool: DevicePool,
        planned: Plan,
        exports: ExportStream,
        *,
        copy: bool,
        batch_bytes: int,
        counters: Counters,
    ) -> None:
        super().__init__(
            gpus,
            pool,
            planned,
            copy=copy,
            batch_bytes=batch_bytes,
            counters=counters,
            batch_allocate=exports.allocate,
        )
        self._exports = exports
        schema = planned.schema
        self._empty = pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)

    def decode(self, _block: Uint8s, found: Scan, base: int = 0) -> LentBatch:
        """Decode the rows of the last scan, and lend them."""
        with self._gpus.cuda.on(self._ordinal):
            batch = self._twin.decode_there(found, base)
        described = self._exports.publish(
            batch.region,
            used_bytes=batch.used_bytes,
            rows=batch.rows,
            columns=[described_by(extents) for extents in batch.extents()],
            cuda_stream=self._stream,
        )
        return LentBatch(self._empty, batch.rows, described.to_json())


def described_by(extents: Extents) -> ColumnExtents:
    """Return what a descriptor says of a column's buffers."""
    children = [replace(described_by(child), values=child.values) for child in extents.children]
    return ColumnExtents(extents.null_count, extents.buffers, children)


class GpuSide:
    """What the GPUs of this host do for reads, until closed.

    Parameters
    ----------
    gpus : Gpus
    options : LendingOptions
    """

    def __init__(self, gpus: Gpus, options: LendingOptions) -> None:
        self._gpus = gpus
        self._fetching = GpuDecoding(gpus)
        self._lending = Lending(gpus, options)

    def fetched(self) -> GpuDecoding:
        """Return the decoding whose batches come back to the host."""
        return self._fetching

    def lent(self) -> Lending:
        """Return the decoding whose batches stay on the GPU."""
        return self._lending

    def info(self) -> dict[str, Any]:
        """Return what ``info`` shows of the GPUs, sizes in bytes."""
        lent = self._lending.statistics
        return {
            "devices": [
                {
                    "ordinal": pool.gpu.ordinal,
                    "uuid": pool.gpu.uuid,
                    "name": pool.gpu.name,
                    "memory_bytes": pool.gpu.memory_bytes,
                    "allocator": pool.statistics().allocator,
                    "pool_used_bytes": pool.statistics().used_bytes,
                    "pool_peak_bytes": pool.statistics().peak_bytes,
                    "pool_maximum_bytes": pool.statistics().maximum_bytes,
                }
                for pool in self._gpus.pools
            ],
            "pinned_held_bytes": self._gpus.pinned.held_bytes,
            "pinned_lent_bytes": self._gpus.pinned.lent_bytes,
            "lease_clients": lent.clients,
            "leases": lent.leases,
            "leased_bytes": lent.leased_bytes,
            "quarantined_bytes": lent.quarantined_bytes,
            "slab_bytes": lent.slab_bytes,
        }

    def close(self) -> None:
        """Lend nothing more."""
        self._lending.close()
