"""Values as text: for CSV, which has no nested or binary values, and for the terminal."""

import json
import math
from collections.abc import Callable

import pyarrow as pa
from pyarrow import types

_NANOSECONDS_PER_SECOND = 1_000_000_000


def for_csv(batch: pa.RecordBatch) -> pa.RecordBatch:
    r"""Rewrite the columns that ``pyarrow.csv`` cannot write.

    Binary becomes PostgreSQL's hex form (``\x00ff``), a UUID its usual form, an interval ISO 8601
    (``P1M2DT3.5S``), a list, struct or map JSON.

    Raises
    ------
    pyarrow.ArrowInvalid
        A value has no text form; names the column.
    """
    columns = list(map(_named_column, batch.schema.names, batch.columns))
    return pa.record_batch(columns, schema=csv_schema(batch.schema))


def csv_schema(schema: pa.Schema) -> pa.Schema:
    """Return the schema of what :func:`for_csv` makes of batches of `schema`."""
    return pa.schema([pa.field(field.name, _column(pa.nulls(0, field.type)).type) for field in schema])


def rows(batch: pa.RecordBatch) -> list[tuple[str | None, ...]]:
    """Return a batch's rows as text, None for NULL."""
    columns = [column.cast(pa.utf8()).to_pylist() for column in for_csv(batch).columns]
    return list(zip(*columns, strict=True)) if columns else [()] * batch.num_rows


def _named_column(name: str, array: pa.Array) -> pa.Array:
    try:
        return _column(array)
    except (pa.ArrowException, ValueError, TypeError, OverflowError, KeyError) as error:
        text = f"column {name!r} of type {array.type} has a value that cannot be written as text: {error}"
        raise pa.ArrowInvalid(text) from error


def _column(array: pa.Array) -> pa.Array:
    """Return the array if CSV has its type, else its values' storage or text."""
    kind = array.type
    if types.is_dictionary(kind):
        return _column(array.dictionary_decode())
    if isinstance(kind, pa.BaseExtensionType) and not isinstance(kind, pa.UuidType):
        return _column(array.storage)
    if types.is_string_view(kind):
        return array.cast(pa.utf8())
    for is_kind, render in _RENDER:
        if is_kind(kind):
            return _rendered(array, render)
    return array


def _rendered(array: pa.Array, render: Callable[..., str]) -> pa.Array:
    values = array.to_pylist(maps_as_pydicts="strict")
    return pa.array([None if value is None else render(value) for value in values], pa.utf8())


def _hex(value: bytes) -> str:
    return "\\x" + value.hex()


def _iso_interval(value: pa.MonthDayNano) -> str:
    """Write ISO 8601 as PostgreSQL reads it: each unit with its own sign."""
    months, days, nanoseconds = value
    seconds, rest = divmod(abs(nanoseconds), _NANOSECONDS_PER_SECOND)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    date = (f"{months}M" if months else "") + (f"{days}D" if days else "")
    time = f"T{'-' * (nanoseconds < 0)}{seconds}{fraction}S"
    return f"P{date}{time}" if nanoseconds or not date else f"P{date}"


def _json(value: object) -> str:
    return json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: object) -> object:
    """Reduce to what JSON has; what it lacks (decimals, times, NaN …) becomes text."""
    if isinstance(value, pa.MonthDayNano):
        return _iso_interval(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return _hex(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


_RENDER: list[tuple[Callable[[pa.DataType], bool], Callable[..., str]]] = [
    (lambda kind: isinstance(kind, pa.UuidType), str),
    (types.is_binary, _hex),
    (types.is_large_binary, _hex),
    (types.is_fixed_size_binary, _hex),
    (types.is_binary_view, _hex),
    (types.is_interval, _iso_interval),
    (types.is_nested, _json),
]
