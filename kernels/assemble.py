"""Arena -> RecordBatch: the buffers stay where the kernels wrote them."""

from __future__ import annotations

import pyarrow as pa

from kernels import layout
from kernels.errors import DecodeError
from kernels.plan import Plan, values_size
from kernels.typing import Int64s, Region


def assemble(plan: Plan, table: Int64s, results: Int64s, region: Region, rows: int) -> pa.RecordBatch:
    """Build the record batch over an arena that `decode` has filled.

    Parameters
    ----------
    plan : Plan
    table : int64 array, columns x DESCRIPTOR_WIDTH
        The descriptor table that was decoded with: it says where the buffers are.
    results : int64 array, columns x RESULT_WIDTH
        Null counts and the place of VARLEN data.
    region : Region
        The arena; kept alive by the batch's buffers and given back when the last of them is released.
    rows : int

    Raises
    ------
    DecodeError
        A column that PostgreSQL declares NOT NULL holds a NULL.
    """
    arena = pa.foreign_buffer(region.array.ctypes.data, region.array.size, base=region)
    arrays = []
    # Plain ints: indexing NumPy arrays element by element costs more than everything else here.
    for field, stored, place, result in zip(
        plan.schema, plan.storage, table.tolist(), results.tolist(), strict=True
    ):
        nulls = result[layout.NULLS]
        if nulls and not field.nullable:
            raise DecodeError("NULL in a column declared NOT NULL", column=field.name)
        validity = arena.slice(place[layout.VALIDITY_AT], (rows + 7) // 8) if nulls else None
        buffers = [validity, arena.slice(place[layout.VALUES_AT], values_size(place, rows))]
        if place[layout.SHAPE] == layout.VARLEN:
            buffers.append(arena.slice(result[layout.DATA_AT], result[layout.DATA_BYTES]))
        array = pa.Array.from_buffers(stored, rows, buffers, nulls)
        if field.type is not stored and isinstance(field.type, pa.BaseExtensionType):
            array = pa.ExtensionArray.from_storage(field.type, array)
        arrays.append(array)
    return pa.RecordBatch.from_arrays(arrays, schema=plan.schema)
