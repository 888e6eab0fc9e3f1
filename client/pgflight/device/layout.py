"""How columns of each type lie in memory: their buffers' sizes, and the parts of nested ones."""

import pyarrow as pa
from pyarrow import types

from pgflight.device.errors import DescriptorError

_OFFSET_BYTES = 4


def storage_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of a column's buffers: without extension types, at all depths."""
    if isinstance(kind, pa.BaseExtensionType):
        return storage_type(kind.storage_type)
    parts = [field.with_type(storage_type(field.type)) for field in children_of(kind)]
    if types.is_struct(kind):
        return pa.struct(parts)
    if types.is_map(kind):
        key, item = parts[0].type
        return pa.map_(key, item, kind.keys_sorted)
    if types.is_fixed_size_list(kind):
        return pa.list_(parts[0], kind.list_size)
    return pa.list_(parts[0]) if types.is_list(kind) else kind


def children_of(kind: pa.DataType) -> list[pa.Field]:
    """Return the fields of a nested type's children, in Arrow's order; none of another type."""
    if isinstance(kind, pa.BaseExtensionType):
        return children_of(kind.storage_type)
    if types.is_struct(kind):
        return list(kind)
    if types.is_map(kind):
        return [pa.field("entries", pa.struct([kind.key_field, kind.item_field]), nullable=False)]
    if types.is_list(kind) or types.is_fixed_size_list(kind):
        return [kind.value_field]
    return []


def has_offsets(kind: pa.DataType) -> bool:
    """Tell whether values of a storage type are found by int32 offsets."""
    return bool(has_data(kind) or types.is_list(kind) or types.is_map(kind))


def has_data(kind: pa.DataType) -> bool:
    """Tell whether values of a storage type are bytes of any number."""
    return bool(types.is_string(kind) or types.is_binary(kind))


def child_values(kind: pa.DataType, rows: int) -> int | None:
    """Return how many values each child of a nested storage type has; None where only the server knows."""
    if types.is_fixed_size_list(kind):
        return int(kind.list_size) * rows
    return rows if types.is_struct(kind) else None


def buffer_sizes(kind: pa.DataType, rows: int) -> list[int]:
    """Return the least size in bytes of each buffer of a storage type, behind the validity.

    Raises
    ------
    DescriptorError
        The type's layout is not one of a device batch.
    """
    if has_offsets(kind):
        return [_OFFSET_BYTES * (rows + 1), *([0] if has_data(kind) else [])]
    if children_of(kind):
        return []
    try:
        width = None if kind.num_fields or types.is_dictionary(kind) else kind.bit_width
    except ValueError:  # of a type whose values differ in width
        width = None
    if width is None:
        raise DescriptorError(f"a device batch has no columns of type {kind}")
    return [int((width * rows + 7) // 8)]
