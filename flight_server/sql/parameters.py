"""Arrow values -> PostgreSQL's text forms, exactly: what PostgreSQL cannot hold is refused, never rounded."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import types

from flight_server.request import Row
from kernels.errors import RequestError

Texts = list[str | None]
"""The text forms of one column, None for NULL."""

BYTEA_OID, BYTEA_ARRAY_OID = 17, 1001
UUID_OID, UUID_ARRAY_OID = 2950, 2951
ELEMENTS = {BYTEA_ARRAY_OID: BYTEA_OID, UUID_ARRAY_OID: UUID_OID}
UUID_BYTES = 16
DAY_MILLIS = 86_400_000
MICROS = {"s": 1_000_000, "ms": 1_000, "us": 1}
NANOS_PER_MICRO = 1_000
MAX_ELEMENTS = 1 << 20
MAX_LIST_BYTES = 16 << 20
NOT_A_TIME = np.iinfo(np.int64).min
"""NumPy's NaT; no timestamp of PostgreSQL is so early."""
SPECIAL_FLOATS = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def text_rows(batch: pa.RecordBatch, targets: Sequence[int]) -> list[Row]:
    """Return the rows of a batch as PostgreSQL's text forms.

    Parameters
    ----------
    batch : RecordBatch
        One column per parameter.
    targets : sequence of int
        OIDs of the types the statement needs: they decide how bytes are written.

    Raises
    ------
    RequestError
        Naming the parameter whose type or value has no exact form.
    """
    if batch.num_columns != len(targets):
        raise RequestError(f"the statement takes {len(targets)} parameters, {batch.num_columns} were given")
    names = [f"parameter ${number}" for number in range(1, len(targets) + 1)]
    return list(zip(*text_columns(batch, names, targets), strict=True))


def text_columns(batch: pa.RecordBatch, names: Sequence[str], targets: Sequence[int]) -> list[Texts]:
    """Return the columns of a batch as PostgreSQL's text forms.

    Parameters
    ----------
    batch : RecordBatch
    names : sequence of str
        How errors call the columns.
    targets : sequence of int
        As for `text_rows`.

    Raises
    ------
    RequestError
        Naming the column whose type or value has no exact form.
    """
    columns = []
    for column, name, target in zip(batch.columns, names, targets, strict=True):
        try:
            columns.append(text_column(column, target))
        except _Refused as reason:
            raise RequestError(f"{name} ({column.type}): {reason}") from reason
    return columns


def text_column(values: pa.Array, target: int) -> Texts:
    """Return the text forms of an array for a parameter of type `target`."""
    kind = values.type
    if isinstance(kind, pa.BaseExtensionType):
        return _extension(values, target)
    for belongs, convert in CONVERTERS:
        if belongs(kind):
            return convert(values, target)
    raise _Refused("the type has no form in PostgreSQL")


class _Refused(Exception):  # noqa: N818 (becomes an error where the parameter's number is known)
    """Why a value has no exact form."""


def _extension(values: pa.Array, target: int) -> Texts:
    name, storage = values.type.extension_name, values.storage
    if name == "arrow.uuid":
        return [None if raw is None else str(uuid.UUID(bytes=raw)) for raw in storage.to_pylist()]
    if name == "arrow.bool8":
        return text_column(storage.cast(pa.bool_()), target)
    return text_column(storage, target)


def _dictionary(values: pa.Array, target: int) -> Texts:
    # Texts are shared, not decoded: a few bytes may stand for very many.
    texts = text_column(values.dictionary, target)
    return [None if index is None else texts[index] for index in values.indices.to_pylist()]


def _runs(values: pa.Array, target: int) -> Texts:
    first, count = values.find_physical_offset(), values.find_physical_length()
    texts = text_column(values.values.slice(first, count), target)
    found: Texts = []
    for text, end in zip(texts, values.run_ends.slice(first, count).to_pylist(), strict=True):
        found += [text] * (min(end - values.offset, len(values)) - len(found))
    return found


def _nulls(values: pa.Array, _target: int) -> Texts:
    return [None] * len(values)


def _integers(values: pa.Array, _target: int) -> Texts:
    return [None if value is None else str(value) for value in values.to_pylist()]


def _booleans(values: pa.Array, _target: int) -> Texts:
    return list(pc.cast(values, pa.string()).to_pylist())


def _floats(values: pa.Array, _target: int) -> Texts:
    # repr is the shortest text that reads back as the same float64; a float32 is widened exactly before.
    texts = (None if value is None else repr(float(value)) for value in values.to_pylist())
    return [None if text is None else SPECIAL_FLOATS.get(text, text) for text in texts]


def _decimals(values: pa.Array, _target: int) -> Texts:
    return [None if value is None else format(value, "f") for value in values.to_pylist()]


def _strings(values: pa.Array, _target: int) -> Texts:
    texts: Texts = values.to_pylist()
    if any("\0" in text for text in texts if text):
        raise _Refused("PostgreSQL's text holds no zero byte")
    return texts


def _bytes(values: pa.Array, target: int) -> Texts:
    if target == BYTEA_OID:
        return [None if raw is None else "\\x" + raw.hex() for raw in values.to_pylist()]
    if target != UUID_OID:
        raise _Refused("bytes go to parameters of type bytea or uuid")
    raws = values.to_pylist()
    if any(len(raw) != UUID_BYTES for raw in raws if raw is not None):
        raise _Refused(f"a uuid has {UUID_BYTES} bytes")
    return [None if raw is None else raw.hex() for raw in raws]


def _dates(values: pa.Array, _target: int) -> Texts:
    if types.is_date32(values.type):
        days = _numbers(values.view(pa.int32()).cast(pa.int64()))
    else:
        millis = _numbers(values.view(pa.int64()))
        if (millis % DAY_MILLIS).any():
            raise _Refused("a date64 in the middle of a day")
        days = millis // DAY_MILLIS
    return _masked(values, [_with_era(text, "") for text in np.datetime_as_string(days.view("datetime64[D]"))])


def _timestamps(values: pa.Array, _target: int) -> Texts:
    unit, zone = values.type.unit, "" if values.type.tz is None else "+00"
    numbers = _numbers(values.view(pa.int64()))
    if unit == "ns":
        numbers, unit = _micros(numbers, unit), "us"
    if (numbers == NOT_A_TIME).any():
        raise _Refused("the timestamp is out of range")
    texts = np.datetime_as_string(numbers.view(f"datetime64[{unit}]"))
    return _masked(values, [_with_era(text.replace("T", " "), zone) for text in texts])


def _times(values: pa.Array, _target: int) -> Texts:
    raw = values.view(pa.int32() if types.is_time32(values.type) else pa.int64()).cast(pa.int64())
    return _masked(values, [_clock(micros) for micros in _micros(_numbers(raw), values.type.unit).tolist()])


def _durations(values: pa.Array, _target: int) -> Texts:
    # Python's integers: seconds since the year 1 in microseconds do not fit into 64 bits.
    unit = values.type.unit
    counts = _numbers(values.view(pa.int64()))
    counts = _micros(counts, unit) if unit == "ns" else counts
    return _masked(values, [_clock(count * MICROS.get(unit, 1)) for count in counts.tolist()])


def _intervals(values: pa.Array, _target: int) -> Texts:
    texts: Texts = []
    for value in values.to_pylist():
        if value is not None and value.nanoseconds % NANOS_PER_MICRO:
            raise _Refused("PostgreSQL keeps microseconds, the value has nanoseconds")
        texts.append(
            None
            if value is None
            else f"{value.months} mons {value.days} days {_clock(value.nanoseconds // NANOS_PER_MICRO)}"
        )
    return texts


def _lists(values: pa.Array, target: int) -> Texts:
    flat = values.flatten()
    if len(flat) > MAX_ELEMENTS:
        raise _Refused(f"lists of more than {MAX_ELEMENTS} elements")
    elements = text_column(flat, ELEMENTS.get(target, target))
    if sum(len(text or "") for text in elements) > MAX_LIST_BYTES:
        raise _Refused(f"lists of more than {MAX_LIST_BYTES} bytes")
    nested = _is_list(values.type.value_type)
    texts: Texts = []
    begin = 0
    for length in pc.list_value_length(values).to_pylist():
        part = elements[begin : begin + (length or 0)]
        texts.append(None if length is None else array_literal(part, nested=nested))
        begin += len(part)
    return texts


def _is_list(kind: pa.DataType) -> bool:
    return bool(types.is_list(kind) or types.is_large_list(kind))


CONVERTERS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array, int], Texts]], ...] = (
    (types.is_null, _nulls),
    (types.is_dictionary, _dictionary),
    (types.is_run_end_encoded, _runs),
    (types.is_boolean, _booleans),
    (types.is_integer, _integers),
    (types.is_floating, _floats),
    (types.is_decimal, _decimals),
    (lambda kind: types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind), _strings),
    (lambda kind: types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind), _bytes),
    (types.is_fixed_size_binary, _bytes),
    (types.is_date, _dates),
    (types.is_timestamp, _timestamps),
    (types.is_time, _times),
    (types.is_duration, _durations),
    (types.is_interval, _intervals),
    (_is_list, _lists),
)
"""First match wins."""


def array_literal(elements: Iterable[str | None], *, nested: bool = False) -> str:
    """Return PostgreSQL's text form of an array of text forms; those of arrays stand as they are."""
    shown = ("NULL" if text is None else text if nested else _quoted(text) for text in elements)
    return "{" + ",".join(shown) + "}"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _numbers(values: pa.Array) -> NDArray[np.int64]:
    """Return an int64 array's values, zero where they are null."""
    return np.ascontiguousarray(pc.fill_null(values, 0).to_numpy(zero_copy_only=False))


def _micros(numbers: NDArray[np.int64], unit: str) -> NDArray[np.int64]:
    if unit != "ns":
        return numbers * MICROS[unit]
    if (numbers % NANOS_PER_MICRO).any():
        raise _Refused("PostgreSQL keeps microseconds, the value has nanoseconds")
    return numbers // NANOS_PER_MICRO


def _masked(values: pa.Array, texts: list[str]) -> Texts:
    if not values.null_count:
        return list(texts)
    return [text if valid else None for text, valid in zip(texts, values.is_valid().to_pylist(), strict=True)]


def _with_era(text: str, zone: str) -> str:
    """Return an ISO date as PostgreSQL writes it: astronomers have a year 0, calendars have 1 BC instead."""
    text = str(text)
    year, rest = int(text[: text.index("-", 1)]), text[text.index("-", 1) :]
    return f"{year:04d}{rest}{zone}" if year > 0 else f"{1 - year:04d}{rest}{zone} BC"


def _clock(micros: int) -> str:
    sign, micros = ("-", -micros) if micros < 0 else ("", micros)
    seconds, fraction = divmod(micros, 1_000_000)
    return f"{sign}{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{fraction:06d}"


def size_of(row: Sequence[Any]) -> int:
    """Return about how many bytes of memory a row of text forms takes."""
    return 64 + sum(64 + len(text or "") for text in row)
