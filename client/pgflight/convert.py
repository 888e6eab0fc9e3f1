"""Arrow types that a consumer cannot take, rewritten without loss into ones that it can."""

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

Replace = Callable[[pa.Array], pa.Array]

_INTERVAL = pa.struct([("months", pa.int32()), ("days", pa.int32()), ("nanoseconds", pa.int64())])
_POLARS_DECIMAL_DIGITS = 38


def for_polars(table: pa.Table) -> pa.Table:
    """Extension types as their storage, intervals as structs, 256-bit decimals as strings.

    Polars 2.1 refuses intervals, panics on 256-bit decimals, and keeps ``arrow.json`` as an extension type
    that its string functions and CSV writer do not take.
    """
    return _table(table.schema, [_rewrite_chunked(column, _polars) for column in table.columns])


def for_pandas(table: pa.Table) -> pa.Table:
    """Extension types inside lists, structs and maps as their storage, and that as plain binary.

    pyarrow converts extension types to pandas on the outside only, and no list of fixed-size binary at all.
    """
    columns = [
        column if isinstance(column.type, pa.BaseExtensionType) else _rewrite_chunked(column, _pandas)
        for column in table.columns
    ]
    return _table(table.schema, columns)


def for_parquet(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Intervals as structs: pyarrow has no Parquet type for them."""
    columns = [_rewrite(column, _interval_as_struct) for column in batch.columns]
    return pa.record_batch(columns, schema=parquet_schema(batch.schema))


def parquet_schema(schema: pa.Schema) -> pa.Schema:
    """Return the schema of what :func:`for_parquet` makes of batches of `schema`."""
    fields = [field.with_type(_rewritten_type(field.type, _interval_as_struct)) for field in schema]
    return pa.schema(fields, metadata=schema.metadata)


def _table(schema: pa.Schema, columns: list[pa.ChunkedArray]) -> pa.Table:
    """Join columns under their old names, without the metadata that would make them extension types again."""
    fields = [
        pa.field(field.name, column.type, field.nullable) for field, column in zip(schema, columns, strict=True)
    ]
    return pa.table(columns, schema=pa.schema(fields))


def _rewrite_chunked(column: pa.ChunkedArray, replace: Replace) -> pa.ChunkedArray:
    chunks = [_rewrite(chunk, replace) for chunk in column.chunks]
    return pa.chunked_array(chunks, type=_rewritten_type(column.type, replace))


def _rewritten_type(kind: pa.DataType, replace: Replace) -> pa.DataType:
    return _rewrite(pa.nulls(0, kind), replace).type


def _rewrite(array: pa.Array, replace: Replace) -> pa.Array:
    """Replace an array, and those inside a list, struct or map; the very same array where nothing changes."""
    array = replace(array)
    if not types.is_nested(array.type):
        return array
    if array.offset:
        array = pa.concat_arrays([array])  # copied to offset 0, so that children and validity line up
    children = _children(array)
    rewritten = [_rewrite(child, replace) for child in children]
    if all(new is old for new, old in zip(rewritten, children, strict=True)):
        return array
    kind = _with_children(array.type, [child.type for child in rewritten])
    own_buffers = array.buffers()[: 1 if _is_inline(kind) else 2]
    return pa.Array.from_buffers(kind, len(array), own_buffers, array.null_count, children=rewritten)


def _is_inline(kind: pa.DataType) -> bool:
    """Whether a nested type has a validity buffer only, and no offsets."""
    return bool(types.is_struct(kind) or types.is_fixed_size_list(kind))


def _children(array: pa.Array) -> list[pa.Array]:
    if types.is_struct(array.type):
        return [array.field(index) for index in range(array.type.num_fields)]
    if types.is_list(array.type) or types.is_large_list(array.type) or types.is_fixed_size_list(array.type):
        return [array.values]
    return [array.values] if types.is_map(array.type) else []


def _with_children(kind: pa.DataType, children: list[pa.DataType]) -> pa.DataType:
    if types.is_struct(kind):
        return pa.struct([kind.field(index).with_type(child) for index, child in enumerate(children)])
    if types.is_map(kind):
        return pa.map_(children[0].field(0), children[0].field(1), kind.keys_sorted)
    item = kind.value_field.with_type(children[0])
    if types.is_fixed_size_list(kind):
        return pa.list_(item, kind.list_size)
    return pa.large_list(item) if types.is_large_list(kind) else pa.list_(item)


def _polars(array: pa.Array) -> pa.Array:
    array = _interval_as_struct(_storage(array))
    if types.is_decimal256(array.type):
        precision, scale = array.type.precision, array.type.scale
        fits = precision <= _POLARS_DECIMAL_DIGITS
        return array.cast(pa.decimal128(precision, scale) if fits else pa.utf8())
    return array


def _pandas(array: pa.Array) -> pa.Array:
    array = _storage(array)
    return array.cast(pa.binary()) if types.is_fixed_size_binary(array.type) else array


def _storage(array: pa.Array) -> pa.Array:
    return array.storage if isinstance(array, pa.ExtensionArray) else array


def _interval_as_struct(array: pa.Array) -> pa.Array:
    """Take the three integers of each interval apart without touching them one by one."""
    if not types.is_interval(array.type):
        return array
    if not len(array):
        return pa.nulls(0, _INTERVAL)
    data, end = array.buffers()[1], array.offset + len(array)
    words = pa.Array.from_buffers(pa.int32(), 4 * end, [None, data])
    quarters = pa.FixedSizeListArray.from_arrays(words, 4)[array.offset :]
    longs = pa.Array.from_buffers(pa.int64(), 2 * end, [None, data])
    halves = pa.FixedSizeListArray.from_arrays(longs, 2)[array.offset :]
    parts = [pc.list_element(quarters, 0), pc.list_element(quarters, 1), pc.list_element(halves, 1)]
    return pa.StructArray.from_arrays(parts, fields=list(_INTERVAL), mask=array.is_null())
