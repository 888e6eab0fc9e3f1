"""The raw format: Arrow buffers as they lie in memory, to be mapped, or read straight into a GPU's memory.

::

    magic, to 4096 bytes | batch, to a multiple of 4096 bytes | … | index, JSON | its length, uint64 | magic

A batch is one region; its buffers begin at multiples of 64 bytes in it, in the order of Arrow's columns, validity
first, children behind their parents.  The index has the schema and, for each batch, where its region is and what
is where in it.  ``pgflight.open_raw`` reads such files.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from typing import Any, Protocol

import pyarrow as pa

MAGIC = b"PGFRAW1\n"
REGION_BYTES = 4096
"""Regions begin at multiples of this: what direct reads ask for."""
BUFFER_BYTES = 64


class Output(Protocol):
    """Where bytes go."""

    def write(self, data: Any, /) -> int:
        """Take bytes."""

    def tell(self) -> int:
        """Return how many there were."""


class RawWriter:
    """Writes batches in the raw format.

    Parameters
    ----------
    output : Output
    schema : Schema
    """

    def __init__(self, output: Output, schema: pa.Schema) -> None:
        self._output = output
        self._schema = schema
        self._batches: list[dict[str, Any]] = []
        output.write(MAGIC)
        self._pad(REGION_BYTES)

    def write(self, batch: pa.RecordBatch) -> None:
        """Take a batch."""
        begin = self._output.tell()
        columns = [[self._put(each, begin) for each in _flat(array)] for array in batch.columns]
        length = self._output.tell() - begin
        self._batches.append({"offset": begin, "length": length, "rows": batch.num_rows, "columns": columns})
        self._pad(REGION_BYTES)

    def close(self) -> None:
        """Write the index."""
        fields = [field.with_type(stored_type(field.type)) for field in self._schema]
        stored = pa.schema(fields, self._schema.metadata)
        schema = base64.b64encode(stored.serialize().to_pybytes()).decode()
        index = json.dumps({"version": 1, "schema": schema, "batches": self._batches}).encode()
        self._output.write(index)
        self._output.write(struct.pack("<Q", len(index)) + MAGIC)

    def _put(self, array: pa.Array, begin: int) -> dict[str, Any]:
        """Write one array's own buffers; return what the index says of them."""
        extents: list[list[int] | None] = []
        for number, buffer in enumerate(array.buffers()[: own_buffers(array.type)]):
            if buffer is None or (number == 0 and not array.null_count):
                extents.append(None)
                continue
            extents.append([self._output.tell() - begin, buffer.size])
            self._output.write(buffer)
            self._pad(BUFFER_BYTES)
        return {"rows": len(array), "nulls": array.null_count, "buffers": extents}

    def _pad(self, multiple: int) -> None:
        self._output.write(bytes(-self._output.tell() % multiple))


def stored_type(kind: pa.DataType) -> pa.DataType:
    """Return what a type is stored as: dictionaries are spelled out."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def own_buffers(kind: pa.DataType) -> int:
    """Return how many buffers an array of a type has, its children's not counted."""
    if pa.types.is_null(kind):
        return 1
    if pa.types.is_struct(kind) or pa.types.is_fixed_size_list(kind):
        return 1
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return 3
    if pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
        return 3
    return 2


def _flat(array: pa.Array) -> Iterator[pa.Array]:
    """Yield an array without its extension type, then its children; all begin at their buffers' beginning."""
    while isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if array.offset:
        array = pa.concat_arrays([array])
    yield array
    if pa.types.is_struct(array.type):
        for index in range(array.type.num_fields):
            yield from _flat(array.field(index))
    elif pa.types.is_list(array.type) or pa.types.is_fixed_size_list(array.type) or pa.types.is_map(array.type):
        yield from _flat(array.values)
