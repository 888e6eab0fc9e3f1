"""Blocks to the GPU: each is copied there once, unless its transport has put it there already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from kernels.decoder import Scan
from kernels.typing import Allocate, DeviceArray, DeviceRegion
from transport.modes.counters import Counters
from transport.modes.device import DeviceSide
from transport.reply import PAD_BYTES

if TYPE_CHECKING:
    from kernels.cuda import CudaDecoder, DeviceBatch


class BlockTwin:
    """The kernels' decoder, fed with blocks of either memory.  Not thread-safe.

    Parameters
    ----------
    decoder : CudaDecoder
    side : DeviceSide
        The GPU's stream that everything happens on, and its memory.
    allocate : Allocate
        Where batches go that come back to the host.
    stream : int
    counters : Counters
        Copies to the GPU are counted there.
    """

    def __init__(
        self, decoder: CudaDecoder, side: DeviceSide, allocate: Allocate, stream: int, counters: Counters
    ) -> None:
        self._decoder = decoder
        self._side = side
        self._allocate = allocate
        self._stream = stream
        self._counters = counters
        self._region: DeviceRegion | None = None
        self._array: DeviceArray = None
        self._there: tuple[int, int, int] | None = None

    @property
    def rows(self) -> int:
        """Rows decoded so far."""
        return self._decoder.rows

    def expect_header(self) -> None:
        """Begin a reply."""
        self._decoder.expect_header()

    def scan(self, block: Any, begin: int, end: int, base: int = 0) -> Scan:
        """Find rows in ``block[begin:end]``; see `CudaDecoder.scan`."""
        if self._side.resident:
            self._array = block
            return self._decoder.scan(block, begin, end, base, stream=self._stream)
        self._bring(block, begin, end, base)
        return self._decoder.scan(self._array, begin, end, base, stream=self._stream, copy=block)

    def decode(self, found: Scan, base: int = 0) -> pa.RecordBatch:
        """Decode the rows of the last scan, and bring them back."""
        batch: DeviceBatch = self.decode_there(found, base)
        return batch.to_host(self._allocate, stream=self._stream)

    def decode_there(self, found: Scan, base: int = 0) -> Any:
        """Decode the rows of the last scan; they stay on the device."""
        return self._decoder.decode(self._array, found, base, stream=self._stream)

    def _bring(self, block: Any, begin: int, end: int, base: int) -> None:
        """Copy what was received, unless it was copied last: a block is scanned again for its other rows."""
        there = (block.ctypes.data, base, end)
        if there == self._there:
            return
        size = -(-(end + PAD_BYTES) // 64) * 64
        if self._region is None or self._region.array.size < size:
            self._region = None  # given back first
            self._region = self._side.allocate(size)
            self._array = self._region.array
        self._side.upload(self._side.address_of(self._array) + begin, block.ctypes.data + begin, end - begin)
        self._counters.uploaded(end - begin)
        self._there = there
