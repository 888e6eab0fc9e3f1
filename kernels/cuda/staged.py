"""Host blocks through the device and back: what a pipeline needs that keeps its blocks on the host."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from kernels import layout
from kernels.cuda.batch import DeviceBatch
from kernels.cuda.decoder import CudaDecoder, Walk
from kernels.cuda.geometry import Geometry
from kernels.cuda.memory import upload
from kernels.decoder import Scan
from kernels.plan import Plan
from kernels.typing import Allocate, DeviceAllocate, DeviceRegion, Uint8s


class StagedDecoder:
    """A `kernels.decoder.Decoder` whose work is done on the device.

    Each scan copies the block there, each decode copies the batch back; nothing overlaps.  Not thread-safe.

    Parameters
    ----------
    plan : Plan
    allocate : Allocate
        Where the batches' host memory comes from.
    device_allocate : DeviceAllocate
    kind, batch_bytes, walk, geometry
        As for `CudaDecoder`.
    stream : int
    batch_allocate
        As for `CudaDecoder`; for batches that stay on the device.
    """

    def __init__(
        self,
        plan: Plan,
        allocate: Allocate,
        device_allocate: DeviceAllocate,
        *,
        kind: int,
        batch_bytes: int,
        walk: Walk | None = None,
        geometry: Geometry | None = None,
        stream: int = 0,
        batch_allocate: DeviceAllocate | None = None,
    ) -> None:
        self._decoder = CudaDecoder(
            plan,
            device_allocate,
            kind=kind,
            batch_bytes=batch_bytes,
            walk=walk,
            geometry=geometry,
            batch_allocate=batch_allocate,
        )
        self._allocate = allocate
        self._device_allocate = device_allocate
        self._stream = stream
        self._block: DeviceRegion | None = None

    @property
    def rows(self) -> int:
        """Rows decoded so far."""
        return self._decoder.rows

    def expect_header(self) -> None:
        """Begin a reply."""
        self._decoder.expect_header()

    def scan(self, block: Uint8s, begin: int, end: int, base: int = 0) -> Scan:
        """Find rows in ``block[begin:end]``; see `CudaDecoder.scan`."""
        size = -(-(end + layout.WIRE_PAD_BYTES) // 8) * 8
        if self._block is None or self._block.array.size < size:
            self._block = None  # given back first
            self._block = self._device_allocate(-(-size // 64) * 64)
        array = self._block.array
        upload(array[begin:end], np.ascontiguousarray(block[begin:end]), stream=self._stream)
        return self._decoder.scan(array, begin, end, base, stream=self._stream, copy=block)

    def decode(self, block: Uint8s, found: Scan, base: int = 0) -> pa.RecordBatch:  # noqa: ARG002 - it is there
        """Decode the rows of the last scan, and bring them back."""
        return self.decode_there(found, base).to_host(self._allocate, stream=self._stream)

    def decode_there(self, found: Scan, base: int = 0) -> DeviceBatch:
        """Decode the rows of the last scan; they stay on the device."""
        if self._block is None:
            raise ValueError("nothing was scanned")
        return self._decoder.decode(self._block.array, found, base, stream=self._stream)
