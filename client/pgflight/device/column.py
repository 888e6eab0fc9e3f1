"""The columns of a device batch: their buffers, and what CuPy and torch make of them without a copy."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import pyarrow as pa

from pgflight.device.descriptor import has_offsets, storage_type

_LIMB_BITS = 64


@dataclass(frozen=True, eq=False)
class DeviceArray:
    """An array in GPU memory, not to be written; it keeps its batch's lease while it lives.

    CuPy, Numba, torch and others take it by ``__cuda_array_interface__``. The data are complete: there is no
    stream to wait for.
    """

    address: int
    dtype: str
    """As NumPy writes it, such as ``<i8``."""
    shape: tuple[int, ...]
    ordinal: int
    owner: object = field(repr=False)

    @property
    def nbytes(self) -> int:
        """The size in bytes."""
        return prod(self.shape) * int(self.dtype[2:])

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "version": 3,
            "shape": self.shape,
            "typestr": self.dtype,
            # Not marked as read-only, for torch then refuses it. Nothing has no address.
            "data": (self.address if self.nbytes else 0, False),
            "strides": None,
            "stream": None,
        }


@dataclass(frozen=True, eq=False)
class DeviceColumn:
    """A column: Arrow's buffers, each an array of bytes; None where there is none."""

    field: pa.Field
    rows: int
    null_count: int
    validity: DeviceArray | None
    """One bit per row, the lowest first; 1 where there is a value. None: there is no NULL."""
    buffers: tuple[DeviceArray, ...]
    """The values; or offsets and data."""

    @property
    def type(self) -> pa.DataType:
        """The Arrow type."""
        return self.field.type

    @property
    def offsets(self) -> DeviceArray | None:
        """Where each value of a text or binary column begins in `data`, as int32; one more than there are rows."""
        return _seen_as(self.buffers[0], "<i4", (self.rows + 1,)) if len(self.buffers) == 2 else None

    @property
    def data(self) -> DeviceArray | None:
        """The bytes of all values of a text or binary column."""
        return self.buffers[1] if len(self.buffers) == 2 else None

    @property
    def values(self) -> DeviceArray:
        """The values of a column whose values are of one width.

        Dates, times, timestamps and durations are integers; decimals rows of int64 limbs, the lowest first (all
        but the last to be read as unsigned); fixed-size binary rows of bytes; booleans are packed, 8 to a byte.

        Raises
        ------
        TypeError
            The values differ in width, or have no such form.
        """
        kind = storage_type(self.type)
        if pa.types.is_boolean(kind):
            return self.buffers[0]
        dtype, shape = _element(kind)
        return _seen_as(self.buffers[0], dtype, (self.rows, *shape))

    def to_cupy(self, *, ignore_nulls: bool = False) -> Any:
        """Return the values as a CuPy array, as :attr:`values` describes them; booleans, unpacked, are a copy.

        Parameters
        ----------
        ignore_nulls
            Whether NULLs may be among them: what stands in their place has no meaning, see :attr:`validity`.

        Raises
        ------
        ValueError
            There are NULLs.
        TypeError
            As for :attr:`values`.
        """
        self._require_values(ignore_nulls)
        values = self.values
        cupy: Any = importlib.import_module("cupy")
        with cupy.cuda.Device(values.ordinal):
            array = cupy.asarray(values)
            if pa.types.is_boolean(self.type):
                return cupy.unpackbits(array, bitorder="little")[: self.rows].view(cupy.bool_)
            return array

    def to_torch(self, *, ignore_nulls: bool = False) -> Any:
        """Return the values as a torch tensor; as :meth:`to_cupy`."""
        self._require_values(ignore_nulls)
        values = self.values
        torch: Any = importlib.import_module("torch")
        device = f"cuda:{values.ordinal}"
        tensor = torch.as_tensor(values, device=device)
        if pa.types.is_boolean(self.type):
            bits = torch.arange(8, dtype=torch.uint8, device=device)
            return (tensor.unsqueeze(1) >> bits & 1).flatten()[: self.rows].bool()
        return tensor

    def _require_values(self, ignore_nulls: bool) -> None:
        if self.null_count and not ignore_nulls:
            raise ValueError(
                f"column {self.field.name!r} has {self.null_count} NULLs, which an array cannot show: "
                "pass ignore_nulls=True and look at column.validity"
            )


def column_of(column: pa.Field, rows: int, null_count: int, buffers: Sequence[DeviceArray | None]) -> DeviceColumn:
    """Make a column of its buffers in Arrow's order."""
    validity, *values = buffers
    there = tuple(buffer for buffer in values if buffer is not None)
    return DeviceColumn(column, rows, null_count, validity if null_count else None, there)


def _element(kind: pa.DataType) -> tuple[str, tuple[int, ...]]:
    """Return the element type of a value, and how many of them in what shape."""
    if has_offsets(kind):
        raise TypeError(f"values of type {kind} differ in length: use column.offsets and column.data")
    if pa.types.is_floating(kind):
        return f"<f{kind.byte_width}", ()
    if pa.types.is_unsigned_integer(kind):
        return f"<u{kind.byte_width}", ()
    if pa.types.is_integer(kind) or (pa.types.is_temporal(kind) and not pa.types.is_interval(kind)):
        return f"<i{kind.byte_width}", ()
    if pa.types.is_decimal(kind):
        return "<i8", (kind.bit_width // _LIMB_BITS,)
    if pa.types.is_fixed_size_binary(kind):
        return "|u1", (kind.byte_width,)
    raise TypeError(f"values of type {kind} have no form as an array: use column.buffers")


def _seen_as(array: DeviceArray, dtype: str, shape: tuple[int, ...]) -> DeviceArray:
    return DeviceArray(array.address, dtype, shape, array.ordinal, array.owner)
