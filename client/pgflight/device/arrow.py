"""Device batches as Arrow's C device arrays, which libcudf and others take without a copy.

nanoarrow builds the structure and releases it; it is built as one in host memory, of which nothing is read, and
its three fields that say where the data are set afterwards.
"""

import ctypes
import importlib
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pgflight.device.column import DeviceArray, DeviceColumn
from pgflight.device.errors import DeviceError
from pgflight.device.layout import storage_type

_DEVICE_ID_AT = 80
_DEVICE_TYPE_AT = 88
_SYNC_EVENT_AT = 96
"""Offsets in ``struct ArrowDeviceArray``; in front of them stands the ``ArrowArray``."""


def device_array(schema: pa.Schema, rows: int, columns: Sequence[DeviceColumn], ordinal: int, kind: int) -> object:
    """Return an ``arrow_device_array`` capsule of a batch, which keeps the buffers' owners.

    Parameters
    ----------
    schema
        Of the batch.
    rows
        Number of rows.
    columns
        In the schema's order.
    ordinal
        The device.
    kind
        ``ARROW_DEVICE_CUDA``, or that of other memory.

    Raises
    ------
    DeviceError
        nanoarrow is missing.
    """
    try:
        na: Any = importlib.import_module("nanoarrow")
        arrays: Any = importlib.import_module("nanoarrow._array")  # what makes a device array has no public name
        devices: Any = importlib.import_module("nanoarrow.device")
    except ImportError as failure:
        raise DeviceError(f"nanoarrow is missing: pip install 'pgflight[cuda13]' ({failure})") from None
    children = [_c_array(na, column) for column in columns]
    plain = pa.struct([pa.field(field.name, storage_type(field.type)) for field in schema])
    root = na.c_array_from_buffers(
        na.c_schema(plain), rows, [None], null_count=0, children=children, move=True, validation_level="none"
    )
    made = arrays.CDeviceArray._init_from_array(devices.cpu(), root._addr(), root.schema)  # noqa: SLF001
    _, capsule = made.__arrow_c_device_array__()
    _place(capsule, ordinal, kind)
    return capsule


def _c_array(na: Any, column: DeviceColumn) -> Any:
    """Build the structure of a column and its children."""
    return na.c_array_from_buffers(
        na.c_schema(storage_type(column.type)),
        column.rows,
        [_buffer(buffer) for buffer in (column.validity, *column.buffers)],
        null_count=column.null_count,
        children=[_c_array(na, child) for child in column.children],
        move=True,
        validation_level="none",
    )


def _buffer(array: DeviceArray | None) -> Any:
    """Wrap an address in what nanoarrow takes for a buffer; pyarrow's keeps the owner, and never looks."""
    return None if array is None else pa.foreign_buffer(array.address, array.nbytes, base=array.owner)


def _place(capsule: object, ordinal: int, kind: int) -> None:
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    address = pointer(capsule, b"arrow_device_array")
    ctypes.c_int64.from_address(address + _DEVICE_ID_AT).value = ordinal
    ctypes.c_int32.from_address(address + _DEVICE_TYPE_AT).value = kind
    ctypes.c_void_p.from_address(address + _SYNC_EVENT_AT).value = None  # the server waited before it published
