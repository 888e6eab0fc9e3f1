"""What the server says about a batch in GPU memory, believed only where every bound holds."""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pgflight.device.cuda import IPC_HANDLE_BYTES
from pgflight.device.errors import DescriptorError, VersionError
from pgflight.device.layout import buffer_sizes, child_values, children_of, storage_type

VERSION = 1
MAX_BYTES = 16 << 20
MAX_ROWS = 2**31 - 1
MAX_SLAB_BYTES = 2**48
SLAB_GRAIN_BYTES = 2 << 20
ALIGN_BYTES = 64
_DATA = 2
"""Which buffer holds the bytes of text: it alone begins anywhere."""

Extent = tuple[int, int]


@dataclass(frozen=True)
class ColumnExtents:
    """Where the buffers of a column, and of its children, are: offset in the region and length, in bytes."""

    values: int
    """How many there are, NULLs among them."""
    null_count: int
    buffers: tuple[Extent | None, ...]
    children: tuple["ColumnExtents", ...] = ()


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    """One batch: a region of a slab, how it is laid out, and the lease on it."""

    gpu: str
    remote_handle: bytes
    slab_bytes: int
    offset: int
    length: int
    address: int
    rows: int
    columns: tuple[ColumnExtents, ...]
    client: str
    stream: int
    lease: int
    expires: float
    free_data: str


def parse(text: bytes, schema: pa.Schema) -> Descriptor:
    """Read a descriptor and check that it fits the schema and stays within its slab.

    Parameters
    ----------
    text
        The JSON, from the batch's ``app_metadata``.
    schema
        Of the stream.

    Raises
    ------
    VersionError
        It is of another version.
    DescriptorError
        It cannot be true.
    """
    said = _object(text)
    if said.get("version") != VERSION:
        raise VersionError(
            f"the server describes device batches in version {said.get('version')!r}, this client reads {VERSION}"
        )
    slab_bytes = _number(said, "slab_bytes", SLAB_GRAIN_BYTES, MAX_SLAB_BYTES)
    _require(slab_bytes % SLAB_GRAIN_BYTES == 0, "the slab is no multiple of 2 MiB")
    offset = _number(said, "offset", 0, slab_bytes)
    length = _number(said, "length", 0, slab_bytes - offset)
    _require(offset % ALIGN_BYTES == 0, "the region is not aligned")
    rows = _number(said, "rows", 0, MAX_ROWS)
    columns = said.get("columns")
    _require(isinstance(columns, list) and len(columns) == len(schema), "not as many columns as in the schema")
    return Descriptor(
        gpu=_text(said, "gpu"),
        remote_handle=_handle(said),
        slab_bytes=slab_bytes,
        offset=offset,
        length=length,
        address=_number(said, "address", 0, 2**63 - 1),
        rows=rows,
        columns=tuple(
            _column(column, field, rows, length) for column, field in zip(columns or [], schema, strict=True)
        ),
        client=_text(said, "client"),
        stream=_number(said, "stream", 0, 2**63 - 1),
        lease=_number(said, "lease", 0, 2**63 - 1),
        expires=_seconds(said),
        free_data=_text(said, "free_data"),
    )


def _column(said: Any, field: pa.Field, values: int, length: int) -> ColumnExtents:
    """Read what is said of a column, or of a child, which has so many values."""
    kind = storage_type(field.type)
    _require(isinstance(said, dict), f"column {field.name!r} is not described")
    nulls = _number(said, "null_count", 0, values if field.nullable else 0)
    buffers = said.get("buffers")
    least = [(values + 7) // 8 if nulls else 0, *buffer_sizes(kind, values)]
    _require(isinstance(buffers, list) and len(buffers) == len(least), f"column {field.name!r} has other buffers")
    extents = [
        _extent(buffer, size, length, 1 if place == _DATA else ALIGN_BYTES, field.name)
        for place, (buffer, size) in enumerate(zip(buffers or [], least, strict=True))
    ]
    _require(None not in extents[1:], f"column {field.name!r} lacks a buffer")
    _require(not nulls or extents[0] is not None, f"column {field.name!r} lacks its validity")
    return ColumnExtents(values, nulls, tuple(extents), _children(said, field, values, length))


def _children(said: Mapping[str, Any], field: pa.Field, values: int, length: int) -> tuple[ColumnExtents, ...]:
    kind = storage_type(field.type)
    fields = children_of(kind)
    children = said.get("children", [])
    _require(
        isinstance(children, list) and len(children) == len(fields), f"column {field.name!r} has other children"
    )
    found = []
    for child, part in zip(children, fields, strict=True):
        _require(isinstance(child, dict), f"a child of column {field.name!r} is not described")
        known = child_values(kind, values)
        low, high = (0, MAX_ROWS) if known is None else (known, known)
        found.append(_column(child, part, _number(child, "values", low, high), length))
    return tuple(found)


def _extent(said: Any, least: int, length: int, align: int, name: str) -> Extent | None:
    if said is None:
        return None
    _require(isinstance(said, list) and len(said) == 2, f"column {name!r} has a buffer without bounds")
    whole = {"offset": said[0], "length": said[1]}
    offset = _number(whole, "offset", 0, length)
    _require(offset % align == 0, f"column {name!r} has a buffer that is not aligned")
    return offset, _number(whole, "length", least, length - offset)


def _object(text: bytes) -> Mapping[str, Any]:
    _require(len(text) <= MAX_BYTES, "the descriptor is too long")
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        raise DescriptorError("the descriptor is not JSON") from None
    _require(isinstance(said, dict), "the descriptor is not a JSON object")
    return said  # type: ignore[no-any-return]


def _number(said: Mapping[str, Any], name: str, low: int, high: int) -> int:
    value = said.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise DescriptorError(f"the descriptor's {name} is not a number from {low} to {high}")
    return value


def _seconds(said: Mapping[str, Any]) -> float:
    value = said.get("expires")
    _require(isinstance(value, int | float) and 0 <= value < 2**53, "the descriptor's expires is no time")
    return float(value or 0)


def _text(said: Mapping[str, Any], name: str) -> str:
    value = said.get(name)
    if not isinstance(value, str):
        raise DescriptorError(f"the descriptor's {name} is not a text")
    return value


def _handle(said: Mapping[str, Any]) -> bytes:
    try:
        handle = base64.b64decode(_text(said, "remote_handle"), validate=True)
    except (binascii.Error, ValueError):
        raise DescriptorError("the descriptor's remote_handle is not base64") from None
    _require(len(handle) == IPC_HANDLE_BYTES, f"the descriptor's remote_handle has not {IPC_HANDLE_BYTES} bytes")
    return handle


def _require(held: object, otherwise: str) -> None:
    if not held:
        raise DescriptorError(otherwise)
