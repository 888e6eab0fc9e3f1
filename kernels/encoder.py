"""Record batches -> the tuples of COPY BINARY: which column is written how, and which conversions are exact."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kernels.backend import HostBackend
from kernels.column import Column
from kernels.errors import RequestError, ValueRangeError
from kernels.typing import Int64s, Uint8s
from kernels.wire import POSTGRES_EPOCH_DAYS, POSTGRES_EPOCH_MICROS

HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER: Final = b"\xff\xff"
ROWS_AT_ONCE: Final = 8192
"""Few enough for a column's values to stay in the cache while they are written."""
GROUPS: Final = 21
"""Groups of four digits that a decimal256 can have, and one."""
NOTHING: Final = np.zeros(0, np.uint8)

TEXT_OIDS: Final = frozenset((25, 1043, 1042, 114, 142, 705))
JSONB_OID: Final = 3802
NATURAL: Final[dict[int, pa.DataType]] = {
    16: pa.bool_(), 20: pa.int64(), 21: pa.int16(), 23: pa.int32(), 700: pa.float32(), 701: pa.float64(),
    17: pa.large_binary(), 1082: pa.date32(), 1083: pa.time64("us"), 1114: pa.timestamp("us"),
    1184: pa.timestamp("us", "UTC"), 1186: pa.month_day_nano_interval(), 2950: pa.binary(16),
}  # fmt: skip
"""By OID: the Arrow type that is written as it is."""
TYPE_NAMES: Final = (
    (pa.types.is_boolean, "boolean"), (pa.types.is_int8, "smallint"), (pa.types.is_uint8, "smallint"),
    (pa.types.is_int16, "smallint"), (pa.types.is_uint16, "integer"), (pa.types.is_int32, "integer"),
    (pa.types.is_uint32, "bigint"), (pa.types.is_int64, "bigint"), (pa.types.is_uint64, "numeric(20,0)"),
    (pa.types.is_float64, "double precision"), (pa.types.is_floating, "real"), (pa.types.is_date, "date"),
    (pa.types.is_time, "time"), (pa.types.is_duration, "interval"), (pa.types.is_interval, "interval"),
    (pa.types.is_string, "text"), (pa.types.is_large_string, "text"), (pa.types.is_string_view, "text"),
    (pa.types.is_null, "text"), (pa.types.is_binary, "bytea"), (pa.types.is_large_binary, "bytea"),
    (pa.types.is_binary_view, "bytea"), (pa.types.is_fixed_size_binary, "bytea"),
)  # fmt: skip
EXTENSIONS: Final = {"arrow.uuid": "uuid", "arrow.json": "json", "arrow.bool8": "boolean"}


def type_name(kind: pa.DataType) -> str:
    """Return the PostgreSQL type, as SQL writes it, of a column that holds an Arrow type exactly.

    Raises
    ------
    RequestError
        There is none.
    """
    if isinstance(kind, pa.BaseExtensionType):
        return EXTENSIONS.get(kind.extension_name) or type_name(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return type_name(kind.value_type)
    if pa.types.is_decimal(kind):
        return f"numeric({kind.precision},{kind.scale})"
    if pa.types.is_timestamp(kind):
        return "timestamptz" if kind.tz else "timestamp"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return f"{type_name(kind.value_type)}[]"
    for belongs, name in TYPE_NAMES:
        if belongs(kind):
            return name
    raise RequestError(f"Arrow's {kind} has no type in PostgreSQL: convert the column")


def plain(array: pa.Array) -> pa.Array:
    """Return an array without extension, dictionary and runs."""
    if isinstance(array, pa.ExtensionArray):
        if array.type.extension_name == "arrow.bool8":
            return pc.cast(array.storage, pa.bool_())
        return plain(array.storage)
    if pa.types.is_dictionary(array.type):
        return plain(array.dictionary_decode())
    if pa.types.is_run_end_encoded(array.type):
        return plain(pc.run_end_decode(array))
    return array


@dataclass(slots=True)
class _Source:
    """One column of a slice: its bits of validity, and where they begin."""

    array: pa.Array
    validity: Uint8s
    first: int

    def values(self, dtype: Any, per_row: int = 1) -> Any:
        """Return the values of the slice."""
        buffer = self.array.buffers()[1]
        begin = self.first * per_row
        return np.frombuffer(buffer, dtype)[begin : begin + len(self.array) * per_row]


Put = Callable[[Uint8s, Int64s], None]


class Encoder:
    """Writes batches as tuples for one table.  Not thread-safe.

    Parameters
    ----------
    backend : HostBackend
    schema : Schema
        Of the batches.
    columns : sequence of Column
        Where the fields go, in their order.
    """

    def __init__(self, backend: HostBackend, schema: pa.Schema, columns: Sequence[Column]) -> None:
        self._kernels = backend.encode
        self._columns = tuple(columns)
        self.is_native = all(_is_native(field.type, column) for field, column in zip(schema, columns, strict=True))
        """Whether every column can be written; else PostgreSQL has to read text."""
        self.rows = 0

    def encode(self, batch: pa.RecordBatch) -> Iterator[memoryview]:
        """Yield the tuples of a batch, some thousands of rows at a time.

        Raises
        ------
        ValueRangeError
            A value has no exact form in its column's type.
        """
        for begin in range(0, batch.num_rows, ROWS_AT_ONCE):
            part = batch.slice(begin, ROWS_AT_ONCE)
            yield self._rows(part)
            self.rows += part.num_rows

    def _rows(self, part: pa.RecordBatch) -> memoryview:
        sizes = np.full(part.num_rows, 2, np.int64)
        puts = [
            self._measured(_converted(array, column, self.rows), column, sizes)
            for array, column in zip(part.columns, self._columns, strict=True)
        ]
        out, cursors = np.empty(int(sizes.sum()), np.uint8), np.empty(part.num_rows, np.int64)
        self._kernels.begin_rows(out, sizes, cursors, len(puts))
        for put in puts:
            put(out, cursors)
        return out.data

    def _measured(self, array: pa.Array, column: Column, sizes: Int64s) -> Put:
        """Add a column's sizes; return what writes its values."""
        kernels, source = self._kernels, _source(array)
        kind, where = array.type, (source.validity, source.first)
        if pa.types.is_decimal(kind):
            return self._numeric(source, sizes)
        if pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
            prefix = 1 if column.type_oid == JSONB_OID else -1
            offsets = np.frombuffer(array.buffers()[1], np.int64)[source.first : source.first + len(array) + 1]
            data = NOTHING if array.buffers()[2] is None else np.frombuffer(array.buffers()[2], np.uint8)
            kernels.varlen_sizes(sizes, *where, offsets, prefix)
            return lambda out, cursors: kernels.put_varlen(out, cursors, *where, offsets, data, prefix)
        if pa.types.is_boolean(kind):
            bits = np.frombuffer(array.buffers()[1], np.uint8)
            kernels.fixed_sizes(sizes, *where, 1)
            return lambda out, cursors: kernels.put_booleans(out, cursors, *where, bits)
        width = kind.bit_width // 8
        kernels.fixed_sizes(sizes, *where, width)
        if pa.types.is_fixed_size_binary(kind):
            raw = source.values(np.uint8, width)
            return lambda out, cursors: kernels.put_bytes(out, cursors, *where, raw, width)
        if pa.types.is_interval(kind):
            return self._interval(source, column)
        bias = {1082: -POSTGRES_EPOCH_DAYS, 1114: -POSTGRES_EPOCH_MICROS, 1184: -POSTGRES_EPOCH_MICROS}
        values = source.values({2: np.int16, 4: np.int32, 8: np.int64}[width])
        shift = bias.get(column.type_oid, 0)
        return lambda out, cursors: kernels.put_fixed(out, cursors, *where, values, width, shift)

    def _numeric(self, source: _Source, sizes: Int64s) -> Put:
        kernels, limbs, scale = self._kernels, source.array.type.byte_width // 8, source.array.type.scale
        words = source.values(np.uint64, limbs)
        digits = np.zeros((len(source.array), GROUPS), np.int16)
        heads = np.zeros((len(source.array), 4), np.int64)
        where = (source.validity, source.first)
        kernels.numeric_digits(words, limbs, scale, *where, digits, heads, sizes)
        return lambda out, cursors: kernels.put_numerics(out, cursors, *where, digits, heads, scale)

    def _interval(self, source: _Source, column: Column) -> Put:
        words, first_row = source.values(np.int64, 2), self.rows

        def put(out: Uint8s, cursors: Int64s) -> None:
            wrong = self._kernels.put_intervals(out, cursors, source.validity, source.first, words)
            if wrong >= 0:
                raise ValueRangeError(
                    "nanoseconds that PostgreSQL's interval does not hold",
                    row=first_row + wrong,
                    column=column.name,
                )

        return put


def _source(array: pa.Array) -> _Source:
    bitmap = array.buffers()[0]
    validity = NOTHING if bitmap is None or not array.null_count else np.frombuffer(bitmap, np.uint8)
    return _Source(array, validity, array.offset)


def _is_native(kind: pa.DataType, column: Column) -> bool:
    """Tell whether an Arrow type can be written as a column's type: values may still be out of range."""
    oid, types = column.type_oid, pa.types
    while isinstance(kind, pa.BaseExtensionType) or pa.types.is_dictionary(kind):
        kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind.value_type
    if types.is_null(kind):
        return oid in NATURAL or oid == JSONB_OID or oid in TEXT_OIDS or oid == 1700
    text = bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))
    if oid in TEXT_OIDS or oid == JSONB_OID or column.kind == "e" or column.send == "citextsend":
        return text
    whole = types.is_integer(kind)
    if oid == 1700:
        return bool(types.is_decimal(kind) or whole)
    binary = types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)
    fits: dict[int, bool] = {
        16: types.is_boolean(kind),
        17: binary or types.is_fixed_size_binary(kind),
        20: whole,
        21: whole,
        23: whole,
        700: types.is_floating(kind) and kind.bit_width <= 32,
        701: types.is_floating(kind),
        1082: types.is_date(kind),
        1083: types.is_time(kind),
        1114: types.is_timestamp(kind) and not kind.tz,
        1184: types.is_timestamp(kind) and bool(kind.tz),
        1186: types.is_interval(kind) or types.is_duration(kind),
        2950: types.is_fixed_size_binary(kind) and kind.byte_width == 16,
    }
    return fits.get(oid, False)


def _converted(array: pa.Array, column: Column, first_row: int) -> pa.Array:
    """Return an array in the form that is written, or raise where that would change a value."""
    bare = plain(array)
    wanted = (
        _decimal_type(bare.type) if column.type_oid == 1700 else NATURAL.get(column.type_oid, pa.large_string())
    )
    try:
        return _exact(bare, wanted)
    except pa.ArrowInvalid as failure:
        row = first_row + _first_refused(bare, wanted)
        text = f"a value has no exact form as {column.display_type or column.type_name}"
        raise ValueRangeError(text, row=row, column=column.name) from failure


def _exact(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    """Convert, or raise ArrowInvalid where that would change a value."""
    if pa.types.is_duration(array.type):
        return _as_interval(array)
    converted = array if array.type == wanted else pc.cast(array, wanted)
    if pa.types.is_timestamp(wanted) or pa.types.is_date32(wanted):
        _require_in_range(converted)
    return converted


def _decimal_type(kind: pa.DataType) -> pa.DataType:
    if not pa.types.is_decimal(kind):
        return pa.decimal128(20, 0)
    scale = max(0, kind.scale)
    precision = kind.precision + scale - kind.scale
    return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)


def _as_interval(durations: pa.Array) -> pa.Array:
    """Return durations as microseconds of an interval: no days are made of them."""
    micros = pc.cast(durations, pa.duration("us"))
    nanos = pc.multiply_checked(pc.cast(micros, pa.int64()), 1000)
    words = np.zeros((len(nanos), 2), np.int64)
    words[:, 1] = pc.fill_null(nanos, 0).to_numpy(zero_copy_only=False)
    valid = None if not nanos.null_count else pc.is_valid(nanos).buffers()[1]
    buffers = [valid, pa.py_buffer(words)]
    return pa.Array.from_buffers(pa.month_day_nano_interval(), len(nanos), buffers, nanos.null_count)


def _require_in_range(array: pa.Array) -> None:
    """Refuse what the distance between the epochs carries out of the integer, or what means infinity there."""
    whole = pc.cast(array, pa.int32() if pa.types.is_date32(array.type) else pa.int64())
    low, high = (-(2**31), 2**31) if pa.types.is_date32(array.type) else (-(2**63), 2**63)
    bias = POSTGRES_EPOCH_DAYS if pa.types.is_date32(array.type) else POSTGRES_EPOCH_MICROS
    found = pc.min_max(whole)
    least = found["min"].as_py()
    if (least is not None and least - bias <= low) or (found["max"].as_py() or 0) >= high:
        raise pa.ArrowInvalid("beyond PostgreSQL's range")


def _first_refused(array: pa.Array, wanted: pa.DataType) -> int:
    """Return the row of the first value that is not converted."""
    low, high = 0, len(array)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            _exact(array.slice(low, middle - low), wanted)
        except pa.ArrowInvalid:
            high = middle
        else:
            low = middle
    return low
