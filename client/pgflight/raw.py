"""Raw files of an export: Arrow buffers as they lie in memory, mapped, or read straight into a GPU's memory."""

import base64
import importlib
import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

_MAGIC = b"PGFRAW1\n"
_END_BYTES = 8 + len(_MAGIC)
_REGION_BYTES = 4096
_VERSION = 1


class RawFileError(ValueError):
    """The file is no raw file, or is not whole."""


@dataclass(frozen=True)
class RawDeviceBatch:
    """A batch of a raw file in a GPU's memory.

    Attributes
    ----------
    schema
    num_rows
    region
        A CuPy array of bytes: all buffers.
    columns
        For each column its arrays, children behind their parents: rows, exact number of NULLs, and for each of
        Arrow's buffers its (offset, length) in the region, or None.
    """

    schema: pa.Schema
    num_rows: int
    region: Any
    columns: list[list[dict[str, Any]]]

    def buffers(self, column: str | int) -> list[Any]:
        """Return a column's buffers as CuPy arrays of bytes, in Arrow's order; None where there is none."""
        index = column if isinstance(column, int) else self.schema.get_field_index(column)
        return [
            None if extent is None else self.region[extent[0] : sum(extent)]
            for array in self.columns[index]
            for extent in array["buffers"]
        ]


class RawFile:
    """A raw file, as ``pgflight-server export --format raw`` writes them.

    Iterating yields record batches whose buffers are the file itself, mapped: nothing is read before it is looked
    at, and nothing is copied.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with pa.memory_map(str(self.path)) as file:
            self._whole: pa.Buffer = file.read_buffer()
        index = _index(self._whole, self.path)
        self.schema: pa.Schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(index["schema"])))
        self._batches: list[dict[str, Any]] = index["batches"]

    @property
    def num_batches(self) -> int:
        """How many batches there are."""
        return len(self._batches)

    @property
    def num_rows(self) -> int:
        """Rows of all batches."""
        return sum(int(batch["rows"]) for batch in self._batches)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for described in self._batches:
            region = self._whole.slice(described["offset"], described["length"])
            arrays = []
            for field, column in zip(self.schema, described["columns"], strict=True):
                arrays.append(_array(field.type, iter(column), region))
            yield pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def to_arrow(self) -> pa.Table:
        """Return the whole file as a table; its buffers are the file's pages."""
        return pa.Table.from_batches(self, self.schema)

    def to_device(self, device: int = 0) -> Iterator[RawDeviceBatch]:
        """Yield the batches in a GPU's memory, each read by one call of kvikio: by GPUDirect where there is one.

        Raises
        ------
        ModuleNotFoundError
            CuPy or kvikio is not installed (``pip install 'pgflight[cuda13]' kvikio-cu13``).
        """
        cupy: Any = importlib.import_module("cupy")
        kvikio: Any = importlib.import_module("kvikio")
        with cupy.cuda.Device(device), kvikio.CuFile(str(self.path), "r") as file:
            for described in self._batches:
                size = (
                    -(-described["length"] // _REGION_BYTES) * _REGION_BYTES
                )  # whole pages: what direct reads like
                region = cupy.empty(size, cupy.uint8)
                cupy.cuda.get_current_stream().synchronize()
                read = file.read(region, size, file_offset=described["offset"])
                if read < described["length"]:
                    raise RawFileError(f"{self.path}: {read} bytes were read of a batch of {described['length']}")
                yield RawDeviceBatch(self.schema, described["rows"], region, described["columns"])


def open_raw(path: str | os.PathLike[str]) -> RawFile:
    """Open a raw file of an export.

    Raises
    ------
    RawFileError
        It is no raw file, or not whole.
    OSError
        It cannot be read.
    """
    return RawFile(path)


def _index(whole: pa.Buffer, path: Path) -> dict[str, Any]:
    size = whole.size
    end = whole.slice(max(0, size - _END_BYTES)).to_pybytes()
    if whole.slice(0, min(size, len(_MAGIC))).to_pybytes() != _MAGIC or not end.endswith(_MAGIC):
        raise RawFileError(f"{path} is no raw file, or not whole")
    (length,) = struct.unpack("<Q", end[:8])
    if length > size - _END_BYTES:
        raise RawFileError(f"{path} is damaged: its index does not fit into it")
    index: dict[str, Any] = json.loads(whole.slice(size - _END_BYTES - length, length).to_pybytes())
    if index["version"] != _VERSION:
        raise RawFileError(f"{path} is of version {index['version']}: a newer pgflight reads it")
    for batch in index["batches"]:
        if batch["offset"] + batch["length"] > size:
            raise RawFileError(f"{path} is damaged: a batch does not fit into it")
    return index


def _array(kind: pa.DataType, described: Iterator[dict[str, Any]], region: pa.Buffer) -> pa.Array:
    """Make an array of what stands next in the index, and its children of what follows."""
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, _array(kind.storage_type, described, region))
    own = next(described)
    children = [_array(child.type, described, region) for child in _children(kind)]
    buffers = [None if extent is None else region.slice(*extent) for extent in own["buffers"]]
    return pa.Array.from_buffers(kind, own["rows"], buffers, own["nulls"], children=children)


def _children(kind: pa.DataType) -> list[pa.Field]:
    if pa.types.is_nested(kind):
        return [kind.field(index) for index in range(kind.num_fields)]
    return []
