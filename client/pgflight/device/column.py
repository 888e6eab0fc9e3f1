"""The columns of a device batch: their buffers, and what CuPy and torch make of them without a copy."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import pyarrow as pa

from pgflight.device.descriptor import ColumnExtents, Extent
from pgflight.device.layout import children_of, has_data, has_offsets, storage_type

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
    """A column, or a child of a nested one: Arrow's buffers, each an array of bytes; None where there is none."""

    field: pa.Field
    rows: int
    null_count: int
    validity: DeviceArray | None
    """One bit per row, the lowest first; 1 where there is a value. None: there is no NULL."""
    buffers: tuple[DeviceArray, ...]
    """The values; or offsets, and the data of text; nothing of a struct or a fixed-size list."""
    children: tuple["DeviceColumn", ...] = ()
    """The elements of a list, the fields of a struct, the entries of a map, as Arrow has them."""

    @property
    def type(self) -> pa.DataType:
        """The Arrow type."""
        return self.field.type

    @property
    def offsets(self) -> DeviceArray | None:
        """Where each value of a text, list or map column begins in `data` or in its child, as int32.

        One more than there are rows; None for other columns.
        """
        found = has_offsets(storage_type(self.type))
        return _seen_as(self.buffers[0], "<i4", (self.rows + 1,)) if found else None

    @property
    def data(self) -> DeviceArray | None:
        """The bytes of all values of a text or binary column."""
        return self.buffers[1] if has_data(storage_type(self.type)) else None

    @property
    def values(self) -> DeviceArray:
        """The values of a column whose values are of one width.

        Dates, times, timestamps and durations are integers; decimals rows of int64 limbs, the lowest first (all
        but the last to be read as unsigned); fixed-size binary rows of bytes; booleans are packed, 8 to a byte.
        A fixed-size list, such as a vector, is a row of a matrix.

        Raises
        ------
        TypeError
            The values differ in width, or have no such form.
        """
        kind = storage_type(self.type)
        if pa.types.is_boolean(kind):
            return self.buffers[0]
        if pa.types.is_fixed_size_list(kind) and not pa.types.is_boolean(kind.value_type):
            numbers = self.children[0].values
            return _seen_as(numbers, numbers.dtype, (self.rows, kind.list_size, *numbers.shape[1:]))
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


def column_of(column: pa.Field, extents: ColumnExtents, at: Callable[[Extent], DeviceArray]) -> DeviceColumn:
    """Make a column, and its children, of where its buffers are in a region."""
    validity, *values = [None if extent is None else at(extent) for extent in extents.buffers]
    fields = children_of(column.type)
    return DeviceColumn(
        column,
        extents.values,
        extents.null_count,
        validity if extents.null_count else None,
        tuple(buffer for buffer in values if buffer is not None),
        tuple(column_of(part, child, at) for part, child in zip(fields, extents.children, strict=True)),
    )


def _element(kind: pa.DataType) -> tuple[str, tuple[int, ...]]:
    """Return the element type of a value, and how many of them in what shape."""
    if has_offsets(kind):
        where = "data" if has_data(kind) else "children"
        raise TypeError(f"values of type {kind} differ in length: use column.offsets and column.{where}")
    if children_of(kind):
        raise TypeError(f"values of type {kind} have no form as an array: use column.children")
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
