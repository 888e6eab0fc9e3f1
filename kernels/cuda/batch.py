"""A batch in device memory, and its way back to the host."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from kernels.assemble import assemble
from kernels.cuda.memory import download
from kernels.extents import Extents, extents_of
from kernels.plan import Plan
from kernels.typing import Allocate, DeviceRegion, Int64s


@dataclass(frozen=True, slots=True)
class DeviceBatch:
    """Rows in device memory, in Arrow's layout.

    Complete on every stream: `CudaDecoder.decode` returns when its stream has come past it.

    Parameters
    ----------
    plan : Plan
    table : int64 array, nodes x DESCRIPTOR_WIDTH
        Where the buffers are in the region; on the host, as all but the region.
    results : int64 array, nodes x RESULT_WIDTH
        Exact null counts and the place of VARLEN data.
    counts : int64 array of nodes
        The number of values of each.
    region : DeviceRegion
        The arena.
    rows : int
    used_bytes : int
        How much of the region is used, from its start.
    """

    plan: Plan
    table: Int64s
    results: Int64s
    counts: Int64s
    region: DeviceRegion
    rows: int
    used_bytes: int

    def extents(self) -> list[Extents]:
        """Return where the buffers of each column are."""
        return extents_of(self.plan, self.table, self.results, self.counts)

    def to_host(self, allocate: Allocate, *, stream: int) -> pa.RecordBatch:
        """Copy the batch to a host region; synchronises with the stream.

        Parameters
        ----------
        allocate : Allocate
            Where the host memory comes from; pinned memory is copied at full speed.
        stream : int
        """
        region = allocate(self.used_bytes)
        download(self.region.array[: self.used_bytes], stream=stream, into=region.array[: self.used_bytes])
        return assemble(self.plan, self.table, self.results, region, self.rows, self.counts)
