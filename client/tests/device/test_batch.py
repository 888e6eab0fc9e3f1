"""Batches over memory of the test's own: buffers, arrays, Arrow's device array, and how long the lease lasts."""

import ctypes
import gc
import sys
import weakref

import numpy as np
import pyarrow as pa
import pytest

from pgflight.device import DeviceBatch, DeviceError, LeaseError
from pgflight.device.arrow import device_array
from pgflight.device.column import DeviceArray, DeviceColumn
from pgflight.device.cuda import Cuda
from pgflight.device.descriptor import ColumnExtents, Descriptor
from pgflight.device.errors import NoGpuError
from pgflight.device.mapping import Slab

HOST_MEMORY = 1
"""``ARROW_DEVICE_CPU``"""
CUDA_MEMORY = 2


class Lease:
    """The right to read, with a connection that is open or not."""

    def __init__(self):
        self.connection = self
        self.is_open = True

    def require_open(self):
        if not self.is_open:
            raise LeaseError("the server is gone")


class HostCuda(Cuda):
    """Copies, from host memory."""

    def __init__(self):
        self.copies = []

    def copy_to_host(self, target, source, size_bytes, ordinal):
        self.copies.append(size_bytes)
        ctypes.memmove(target, source, size_bytes)


def lay_out(batch):
    """Place a batch in one piece of memory; return it and where the buffers are."""
    pieces = []

    def place(array):
        if isinstance(array, pa.ExtensionArray):
            return place(array.storage)
        extents = []
        for buffer in array.buffers()[: OWN_BUFFERS.get(array.type.id)]:
            data = buffer.to_pybytes() if buffer else b""
            extents.append((sum(map(len, pieces)), len(data)))
            pieces.append(data.ljust(-(-len(data) // 64) * 64, b"\0"))
        if not array.null_count:
            extents[0] = None
        return ColumnExtents(len(array), array.null_count, tuple(extents), tuple(map(place, parts_of(array))))

    columns = tuple(map(place, batch.columns))
    return np.frombuffer(b"".join(pieces).ljust(64, b"\0"), np.uint8), columns


OWN_BUFFERS = {pa.lib.Type_STRUCT: 1, pa.lib.Type_FIXED_SIZE_LIST: 1, pa.lib.Type_LIST: 2, pa.lib.Type_MAP: 2}
"""A nested array's buffers stand before those of its parts."""


def parts_of(array):
    if pa.types.is_struct(array.type):
        return [array.field(index) for index in range(array.type.num_fields)]
    if pa.types.is_map(array.type):
        return [
            pa.StructArray.from_arrays(
                [array.keys, array.items], fields=[array.type.key_field, array.type.item_field]
            )
        ]
    return [array.values] if pa.types.is_list(array.type) or pa.types.is_fixed_size_list(array.type) else []


class Lent:
    """A batch in memory that is there as long as its lease."""

    def __init__(self, batch, kind=HOST_MEMORY):
        self.memory, columns = lay_out(batch)
        described = Descriptor(
            gpu="GPU-0", remote_handle=bytes(64), slab_bytes=2 << 20, offset=0, length=self.memory.size,
            address=0, rows=batch.num_rows, columns=columns, client="a" * 32, stream=1, lease=1, expires=0.0,
            free_data="",
        )  # fmt: skip
        lease = Lease()
        self.lease = weakref.ref(lease)
        self.cuda = HostCuda()
        slab = Slab(self.memory.ctypes.data, 2 << 20, 0, kind)
        self.batch = DeviceBatch(batch.schema, described, slab, lease, self.cuda)

    @property
    def is_held(self):
        gc.collect()
        return self.lease() is not None


def sample(rows=100):
    return pa.record_batch({
        "n": pa.array(range(rows), pa.int64()),
        "gaps": pa.array([None if n % 3 else n for n in range(rows)], pa.int32()),
        "text": pa.array([None if n % 5 == 0 else "ä" * n for n in range(rows)], pa.utf8()),
        "yes": pa.array([n % 2 == 0 for n in range(rows)], pa.bool_()),
        "amount": pa.array(range(rows), pa.decimal128(15, 2)),
        "big": pa.array(range(rows), pa.decimal256(50, 0)),
        "day": pa.array(range(rows), pa.date32()),
        "at": pa.array(range(rows), pa.timestamp("us", "UTC")),
        "time": pa.array(range(rows), pa.time64("us")),
        "span": pa.array([(n, 1, 2) for n in range(rows)], pa.month_day_nano_interval()),
        "data": pa.array([b"x" * n for n in range(rows)], pa.binary()),
        "id": pa.array([bytes([n] * 16) for n in range(rows)], pa.uuid()),
        "json": pa.ExtensionArray.from_storage(pa.json_(pa.utf8()), pa.array(["{}"] * rows, pa.utf8())),
        "list": pa.array([None if n % 7 == 0 else [n, None] * (n % 3) for n in range(rows)], pa.list_(pa.int32())),
        "texts": pa.array([["ä" * n, None, ""][: n % 4] for n in range(rows)], pa.list_(pa.utf8())),
        "pair": pa.array(
            [None if n % 4 == 0 else {"a": n, "b": [{"c": str(n)}, None]} for n in range(rows)],
            pa.struct([("a", pa.int64()), ("b", pa.list_(pa.struct([("c", pa.utf8())])))]),
        ),
        "map": pa.array([[("k", None), ("l", "x")][: n % 3] for n in range(rows)], pa.map_(pa.utf8(), pa.utf8())),
        "vector": pa.array([[n, 1, 2] for n in range(rows)], pa.list_(pa.float32(), 3)),
        "ids": pa.ListArray.from_arrays(
            pa.array(range(rows + 1), pa.int32()), pa.array([bytes([n] * 16) for n in range(rows)], pa.uuid())
        ),
    })  # fmt: skip


def seen(array):
    """Read an array by its interface, as a library would on a GPU."""
    interface = array.__cuda_array_interface__
    assert interface["version"] == 3
    assert interface["strides"] is interface["stream"] is None
    address, read_only = interface["data"]
    assert not read_only, "torch refuses what is marked so"
    if not array.nbytes:
        assert address == 0
        return np.empty(interface["shape"], interface["typestr"])
    memory = (ctypes.c_uint8 * array.nbytes).from_address(address)
    return np.frombuffer(memory, interface["typestr"]).reshape(interface["shape"])


@pytest.mark.parametrize("rows", [0, 1, 100])
def test_to_arrow_is_one_copy(rows):
    lent = Lent(sample(rows))
    found = lent.batch.to_arrow()
    assert found.equals(sample(rows), check_metadata=True)
    assert lent.cuda.copies == [lent.memory.size]
    found.validate(full=True)


@pytest.mark.parametrize("rows", [0, 1, 100])
def test_the_device_array_is_imported_without_a_copy(rows):
    """Arrow's own importer, of memory that it takes for the host's."""
    lent = Lent(sample(rows))
    found = pa.record_batch(lent.batch)
    found.validate(full=True)
    assert found.equals(sample(rows), check_metadata=True)
    begin = lent.memory.ctypes.data
    for column in found.columns:
        for buffer in column.buffers():
            assert buffer is None or not buffer.size or begin <= buffer.address < begin + lent.memory.size


def test_what_was_imported_holds_the_lease():
    lent = Lent(sample())
    found = pa.record_batch(lent.batch)
    column = found["text"]
    lent.batch.release()
    del found
    assert lent.is_held
    assert column.equals(sample()["text"])
    del column
    assert not lent.is_held


def test_a_device_array_that_nobody_takes_is_released():
    lent = Lent(sample())
    capsules = lent.batch.__arrow_c_device_array__()
    lent.batch.release()
    assert lent.is_held
    del capsules
    assert not lent.is_held


def test_memory_of_a_gpu_is_not_looked_at():
    """Built over addresses that are nobody's; Arrow, which has no CUDA, refuses it by its type."""
    rows = 5
    schema = pa.schema([("n", pa.int64()), ("text", pa.utf8())])
    owner = Lease()
    held = weakref.ref(owner)
    nowhere = [DeviceArray(0x7000000000 + 4096 * n, "|u1", (64,), 3, owner) for n in range(3)]
    batch = Lent(sample(rows)).batch
    columns = [
        DeviceColumn(batch.column(name).field, rows, 0, None, tuple(nowhere[:buffers]))
        for name, buffers in (("n", 1), ("text", 2))
    ]
    del nowhere, owner
    capsule = device_array(schema, rows, columns, 3, CUDA_MEMORY)
    del columns
    with pytest.raises(pa.ArrowKeyError, match="Device type 2"):
        pa.RecordBatch._import_from_c_device_capsule(schema.__arrow_c_schema__(), capsule)
    del capsule
    gc.collect()
    assert held() is None


def test_the_fields_of_the_device_array():
    lent = Lent(sample(3), kind=CUDA_MEMORY)
    _, capsule = lent.batch.__arrow_c_device_array__()
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    address = pointer(capsule, b"arrow_device_array")
    length, null_count, offset, buffers, children = (ctypes.c_int64 * 5).from_address(address)
    assert (length, null_count, offset, buffers, children) == (3, 0, 0, 1, len(sample().schema))
    device_id, device_type, event = (kind.from_address(address + at).value for kind, at in (
        (ctypes.c_int64, 80), (ctypes.c_int32, 88), (ctypes.c_void_p, 96)))  # fmt: skip
    assert (device_id, device_type, event) == (0, CUDA_MEMORY, None)
    assert bytes((ctypes.c_uint8 * 24).from_address(address + 104)) == bytes(24)


def test_unknown_arguments_are_refused():
    lent = Lent(sample())
    with pytest.raises(NotImplementedError, match="later"):
        lent.batch.__arrow_c_device_array__(later=1)
    lent.batch.__arrow_c_device_array__(requested_schema=None, later=None)


def test_the_schema_with_its_metadata():
    schema = sample().schema.with_metadata({"a": "b"})
    lent = Lent(sample().cast(schema))
    assert pa.schema(lent.batch).equals(schema, check_metadata=True)
    assert lent.batch.num_rows == 100
    assert "100 rows, 19 columns" in repr(lent.batch)


def test_values_and_buffers():
    batch, lent = sample(), Lent(sample())
    rows = batch.num_rows
    column = lent.batch.column
    assert seen(column("n").values).tolist() == list(range(rows))
    assert seen(column(0).values).dtype == np.int64
    assert column("n").validity is None
    assert column("n").data is column("n").offsets is None
    gaps = column("gaps")
    assert gaps.null_count == batch["gaps"].null_count
    bits = np.unpackbits(seen(gaps.validity), bitorder="little")[:rows]
    assert bits.tolist() == [int(value is not None) for value in batch["gaps"].to_pylist()]
    text = column("text")
    offsets, data = seen(text.offsets), seen(text.data).tobytes()
    assert data[offsets[7] : offsets[8]].decode() == batch["text"][7].as_py()
    assert np.unpackbits(seen(column("yes").values), bitorder="little")[:rows].tolist() == [1, 0] * (rows // 2)
    assert seen(column("amount").values).tolist() == [[100 * n, 0] for n in range(rows)]
    assert seen(column("big").values).shape == (rows, 4)
    assert seen(column("day").values).dtype == np.int32
    assert seen(column("at").values).tolist() == seen(column("time").values).tolist() == list(range(rows))
    assert seen(column("id").values).shape == (rows, 16)
    assert column("id").type == pa.uuid()
    assert [each.field.name for each in lent.batch.columns] == batch.schema.names


def test_vectors_are_a_matrix():
    lent = Lent(sample())
    vectors = lent.batch.column("vector")
    assert seen(vectors.values).tolist() == [[n, 1, 2] for n in range(100)]
    assert seen(vectors.values).dtype == np.float32
    assert vectors.values.address == vectors.children[0].values.address
    assert vectors.offsets is vectors.data is None
    assert vectors.buffers == ()


def test_the_parts_of_nested_columns():
    batch, lent = sample(), Lent(sample())
    numbers = lent.batch.column("list")
    assert seen(numbers.offsets).tolist() == batch["list"].offsets.to_pylist()
    (elements,) = numbers.children
    assert (elements.rows, elements.null_count) == (len(batch["list"].values), batch["list"].values.null_count)
    assert numbers.data is None
    pairs = lent.batch.column("pair")
    assert [child.field.name for child in pairs.children] == ["a", "b"]
    assert pairs.validity is not None
    texts = pairs.children[1].children[0].children[0]
    assert seen(texts.data).tobytes().decode() == "".join(str(n) for n in range(100) if n % 4)
    (entries,) = lent.batch.column("map").children
    assert [child.field.name for child in entries.children] == ["key", "value"]
    assert lent.batch.column("ids").children[0].type == pa.uuid()


@pytest.mark.parametrize("name", ["text", "data", "json", "span", "list", "pair", "map"])
def test_columns_without_a_form_as_an_array(name):
    lent = Lent(sample())
    with pytest.raises(TypeError, match=r"column\.(offsets|buffers|children)"):
        _ = lent.batch.column(name).values


@pytest.mark.parametrize("name", ["to_cupy", "to_torch"])
def test_nulls_are_not_lost_silently(name):
    lent = Lent(sample())
    with pytest.raises(ValueError, match="'gaps' has 66 NULLs"):
        getattr(lent.batch, name)("gaps")


@pytest.mark.parametrize("name", ["absent", 19, -1])
def test_no_such_column(name):
    with pytest.raises(KeyError):
        Lent(sample()).batch.column(name)


def test_two_columns_of_one_name():
    batch = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], names=["n", "n"])
    lent = Lent(batch)
    with pytest.raises(KeyError, match="several"):
        lent.batch.column("n")
    assert seen(lent.batch.column(1).values).tolist() == [2]


def test_the_lease_lasts_as_long_as_anything_made_of_the_batch():
    lent = Lent(sample())
    values = lent.batch.column("n").values
    del lent.batch
    assert lent.is_held
    assert seen(values)[5] == 5
    del values
    assert not lent.is_held


def test_leaving_the_block_gives_back():
    lent = Lent(sample())
    with lent.batch as batch:
        assert batch.column("n").rows == 100
    assert not lent.is_held
    for use in (batch.to_arrow, batch.__arrow_c_device_array__, lambda: batch.column(0)):
        with pytest.raises(LeaseError, match="was released"):
            use()
    batch.release()
    assert "released" in repr(batch)


def test_when_the_server_is_gone():
    lent = Lent(sample())
    lent.lease().is_open = False
    with pytest.raises(LeaseError, match="the server is gone"):
        lent.batch.column("n")


def test_many_exports_leak_nothing():
    lent = Lent(sample())
    for _ in range(200):
        pa.record_batch(lent.batch)
    lent.batch.release()
    assert not lent.is_held


def test_without_nanoarrow(monkeypatch):
    monkeypatch.setitem(sys.modules, "nanoarrow", None)
    with pytest.raises(DeviceError, match=r"pgflight\[cuda13\]"):
        Lent(sample()).batch.__arrow_c_device_array__()


def test_without_cuda(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(NoGpuError, match=r"pgflight\[cuda13\]"):
        Cuda()
