"""A consumer of device batches: sums a column of numbers and hashes a column of text, where they lie."""

from __future__ import annotations

import importlib
from typing import Any

import pyarrow as pa

HASH = r"""
extern "C" __global__
void hash(const int* offsets, const unsigned char* data, long long rows, unsigned long long* total) {
    unsigned long long sum = 0;
    for (long long row = blockIdx.x * (long long)blockDim.x + threadIdx.x; row < rows;
         row += (long long)gridDim.x * blockDim.x) {
        unsigned long long value = 14695981039346656037ull;
        for (int at = offsets[row]; at < offsets[row + 1]; ++at)
            value = (value ^ data[at]) * 1099511628211ull;
        sum += value;
    }
    atomicAdd(total, sum);
}
"""
"""FNV-1a of each value; the sum does not depend on the order of rows."""
BLOCKS, THREADS = 1024, 128


class Consumer:
    """Keeps a sum and a hash of a read's batches on the GPU.

    Parameters
    ----------
    schema : Schema
        With at least one column of numbers and one of text.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._cupy: Any = importlib.import_module("cupy")
        self._number = _first(schema, pa.types.is_decimal) or _first(schema, pa.types.is_integer)
        self._text = _first(schema, pa.types.is_string)
        self._kernel = self._cupy.RawKernel(HASH, "hash")
        self._sum = self._cupy.zeros((), self._cupy.int64)
        self._hash = self._cupy.zeros(1, self._cupy.uint64)

    def use(self, batch: Any) -> None:
        """Queue the work on a `pgflight.device.DeviceBatch`, and wait for it: it goes back when this returns."""
        if self._number is not None:
            values = batch.to_cupy(self._number, ignore_nulls=True)
            low = values[:, 0] if values.ndim == 2 else values  # of a decimal the low limb: sums here are small
            self._sum += low.sum(dtype=self._cupy.int64)
        if self._text is not None:
            column = batch.column(self._text)
            offsets, data = self._cupy.asarray(column.offsets), self._cupy.asarray(column.data)
            self._kernel((BLOCKS,), (THREADS,), (offsets, data, batch.num_rows, self._hash))
        self._cupy.cuda.get_current_stream().synchronize()

    def result(self) -> tuple[int, int]:
        """Return the sum and the hash."""
        return int(self._sum), int(self._hash[0])


def _first(schema: pa.Schema, is_wanted: Any) -> str | None:
    return next((field.name for field in schema if is_wanted(field.type)), None)
