"""One batch in GPU memory: Arrow columns that no CPU has decoded or copied."""

import importlib
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from pgflight.device import arrow
from pgflight.device.column import DeviceArray, DeviceColumn, column_of
from pgflight.device.cuda import Cuda
from pgflight.device.descriptor import ColumnExtents, Descriptor, Extent
from pgflight.device.errors import LeaseError
from pgflight.device.layout import children_of
from pgflight.device.lease import Lease
from pgflight.device.mapping import Slab


class DeviceBatch:
    """A record batch in GPU memory, lent by the server.

    It goes back to the server when neither it nor anything made of it without a copy is referenced any more;
    leaving its ``with`` block, or :meth:`release`, drops the batch's own reference. Work on the GPU that is under
    way then is waited for. While too much is held, the server makes no further batches.

    Also an Arrow C device array (``__arrow_c_device_array__``).
    """

    def __init__(self, schema: pa.Schema, described: Descriptor, slab: Slab, lease: Lease, cuda: Cuda) -> None:
        self.schema = schema
        self.num_rows = described.rows
        self.nbytes = described.length
        self.gpu = described.gpu
        """UUID of the GPU that the batch lies on."""
        self.device_id = slab.ordinal
        """This process's number of that GPU."""
        self.expires = described.expires
        """Until when the server promises to keep the batch, in Unix seconds; in fact until it is given back."""
        self._described = described
        self._slab = slab
        self._cuda = cuda
        self._lease: Lease | None = lease

    @property
    def columns(self) -> tuple[DeviceColumn, ...]:
        """All columns."""
        return tuple(self.column(index) for index in range(len(self.schema)))

    def column(self, column: str | int) -> DeviceColumn:
        """Return a column by name or number.

        Raises
        ------
        KeyError
            There is no such column, or there are several of that name.
        LeaseError
            The batch was released, or the server is gone.
        """
        lease = self._require_lease()
        index = column if isinstance(column, int) else self.schema.get_field_index(column)
        if not 0 <= index < len(self.schema):
            raise KeyError(f"there is no column {column!r}, or several")

        def at(extent: Extent) -> DeviceArray:
            return DeviceArray(self._address + extent[0], "|u1", (extent[1],), self.device_id, lease)

        return column_of(self.schema.field(index), self._described.columns[index], at)

    def to_cupy(self, column: str | int, *, ignore_nulls: bool = False) -> Any:
        """Return a column's values as a CuPy array; see :meth:`DeviceColumn.to_cupy`."""
        return self.column(column).to_cupy(ignore_nulls=ignore_nulls)

    def to_torch(self, column: str | int, *, ignore_nulls: bool = False) -> Any:
        """Return a column's values as a torch tensor; see :meth:`DeviceColumn.to_torch`."""
        return self.column(column).to_torch(ignore_nulls=ignore_nulls)

    def to_pylibcudf(self) -> Any:
        """Return the batch as a ``pylibcudf.Table``, without a copy but of booleans.

        libcudf has no binary, fixed-size binary, fixed-size list, map, time, interval and decimal256 columns: it
        refuses them.
        """
        pylibcudf: Any = importlib.import_module("pylibcudf")
        streams: Any = importlib.import_module("rmm.pylibrmm.stream")
        return pylibcudf.Table.from_arrow(self, stream=streams.DEFAULT_STREAM)

    def to_cudf(self) -> Any:
        """Return the batch as a ``cudf.DataFrame``; as :meth:`to_pylibcudf`, but that cuDF converts dates."""
        cudf: Any = importlib.import_module("cudf")
        return cudf.DataFrame.from_pylibcudf(self.to_pylibcudf(), metadata={"columns": self.schema.names})

    def to_arrow(self) -> pa.RecordBatch:
        """Return the batch in host memory: one copy."""
        self._require_lease()
        whole = pa.allocate_buffer(self.nbytes)
        self._cuda.copy_to_host(whole.address, self._address, self.nbytes, self.device_id)
        arrays = [
            _host_array(field.type, extents, whole)
            for field, extents in zip(self.schema, self._described.columns, strict=True)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def release(self) -> None:
        """Drop the batch's own reference to its memory. Harmless a second time."""
        self._lease = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __arrow_c_schema__(self) -> object:
        return self.schema.__arrow_c_schema__()

    def __arrow_c_device_array__(
        self, requested_schema: object | None = None, **kwargs: object
    ) -> tuple[object, object]:
        """Export the batch; `requested_schema` is a wish that is not granted."""
        given = [name for name, value in kwargs.items() if value is not None]
        if given:
            raise NotImplementedError(f"unknown arguments: {', '.join(given)}")
        capsule = arrow.device_array(self.schema, self.num_rows, self.columns, self.device_id, self._slab.kind)
        return self.schema.__arrow_c_schema__(), capsule

    def __repr__(self) -> str:
        state = "" if self._lease else ", released"
        return f"<pgflight.DeviceBatch of {self.num_rows} rows, {len(self.schema)} columns on {self.gpu}{state}>"

    @property
    def _address(self) -> int:
        return self._slab.address + self._described.offset

    def _require_lease(self) -> Lease:
        if self._lease is None:
            raise LeaseError("the batch was released")
        self._lease.connection.require_open()
        return self._lease


def _host_array(kind: pa.DataType, extents: ColumnExtents, whole: pa.Buffer) -> pa.Array:
    """Build an array over a region's copy."""
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, _host_array(kind.storage_type, extents, whole))
    validity, *values = [None if extent is None else whole.slice(*extent) for extent in extents.buffers]
    children = [
        _host_array(field.type, child, whole)
        for field, child in zip(children_of(kind), extents.children, strict=True)
    ]
    buffers = [validity if extents.null_count else None, *values]
    return pa.Array.from_buffers(kind, extents.values, buffers, extents.null_count, children=children or None)
