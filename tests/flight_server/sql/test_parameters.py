"""Parameters: every Arrow type reaches PostgreSQL as exactly the value it is, or is refused."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flight_server.sql.parameters import array_literal, text_column, text_rows
from kernels.errors import RequestError
from tests.flight_server.sql.rpc import RawClient

D = Decimal
UTC = dt.UTC
MICROS = pa.timestamp("us")


def raw_times(values: list[int | None], kind: pa.DataType) -> pa.Array:
    """Make times outside Python's range."""
    return pa.array(values, pa.int64()).view(kind)


# fmt: off
CASES: dict[str, tuple[str, pa.Array, list[str | None]]] = {
    "null": ("int4", pa.nulls(2), [None, None]),
    "bool": ("bool", pa.array([True, None, False]), ["true", None, "false"]),
    "bool8": ("bool", pa.ExtensionArray.from_storage(pa.bool8(), pa.array([2, 0], pa.int8())), ["true", "false"]),
    "int8": ("int2", pa.array([-128, 127], pa.int8()), ["-128", "127"]),
    "int64": ("int8", pa.array([-(2**63), 2**63 - 1, None]), ["-9223372036854775808", "9223372036854775807", None]),
    "uint64": ("numeric", pa.array([2**64 - 1], pa.uint64()), ["18446744073709551615"]),
    "float64": ("float8", pa.array([0.1, -0.0, 5e-324, 1.7976931348623157e308, None]),
                ["0.1", "-0", "5e-324", "1.7976931348623157e+308", None]),
    "float64 specials": ("float8", pa.array([float("nan"), float("inf"), -float("inf")]),
                         ["NaN", "Infinity", "-Infinity"]),
    "float32": ("float4", pa.array([0.1, 3.4028235e38, 1e-45], pa.float32()), ["0.1", "3.4028235e+38", "1e-45"]),
    "float16": ("float4", pa.array([1.5, 65504.0], pa.float16()), ["1.5", "65504"]),
    "decimal128": ("numeric", pa.array([D("-1.2300"), D("0.0001"), None], pa.decimal128(38, 4)),
                   ["-1.2300", "0.0001", None]),
    "decimal256": ("numeric", pa.array([D("9" * 70 + ".123456")], pa.decimal256(76, 6)), ["9" * 70 + ".123456"]),
    "decimal of negative scale": ("numeric", pa.array([D("1.2E+4")], pa.decimal128(5, -3)), ["12000"]),
    "decimal32": ("numeric", pa.array([D("1.25")], pa.decimal32(5, 2)), ["1.25"]),
    "string": ("text", pa.array(["", "a'b\\c", "日本 🙂", None]), ["", "a'b\\c", "日本 🙂", None]),
    "large_string": ("text", pa.array(["a"], pa.large_string()), ["a"]),
    "string_view": ("text", pa.array(["a", "longer than twelve bytes"], pa.string_view()),
                    ["a", "longer than twelve bytes"]),
    "dictionary": ("text", pa.array(["x", "y", None, "x"]).dictionary_encode(), ["x", "y", None, "x"]),
    "run-end encoded": ("int4", pa.RunEndEncodedArray.from_arrays([2, 3, 6], [7, None, 8]),
                        ["7", "7", None, "8", "8", "8"]),
    "binary": ("bytea", pa.array([b"", b"\x00\xff", None]), ["\\x", "\\x00ff", None]),
    "large_binary": ("bytea", pa.array([b"a"], pa.large_binary()), ["\\x61"]),
    "fixed_size_binary": ("bytea", pa.array([b"ab"], pa.binary(2)), ["\\x6162"]),
    "uuid": ("uuid", pa.array([uuid.UUID(int=5).bytes, None], pa.uuid()),
             ["00000000-0000-0000-0000-000000000005", None]),
    "uuid as bytes": ("uuid", pa.array([uuid.UUID(int=6).bytes], pa.binary(16)),
                      ["00000000-0000-0000-0000-000000000006"]),
    "json": ("jsonb", pa.array(['{"a": [1]}'], pa.json_(pa.string())), ['{"a": [1]}']),
    "date32": ("date", pa.array([dt.date(1, 1, 1), dt.date(9999, 12, 31), None]), ["0001-01-01", "9999-12-31", None]),
    "date32 beyond Python": ("date", pa.array([-720_000, 4_000_000], pa.int32()).view(pa.date32()),
                             ["0003-09-16 BC", "12921-08-18"]),
    "date64": ("date", raw_times([86_400_000 * 3], pa.date64()), ["1970-01-04"]),
    "timestamp": ("timestamp", pa.array([dt.datetime(2020, 1, 1, 12, 0, 0, 5), None], MICROS),  # noqa: DTZ001
                  ["2020-01-01 12:00:00.000005", None]),
    "timestamp in seconds": ("timestamp", raw_times([-1], pa.timestamp("s")), ["1969-12-31 23:59:59"]),
    "timestamp in nanoseconds": ("timestamp", raw_times([1_000, -1_000], pa.timestamp("ns")),
                                 ["1970-01-01 00:00:00.000001", "1969-12-31 23:59:59.999999"]),
    "timestamp beyond Python": ("timestamp", raw_times([-63_000_000_000_000_000, 9_000_000_000_000_000_000], MICROS),
                                ["0028-08-11 08:00:00 BC", "287168-08-24 16:00:00"]),
    "timestamp with time zone": ("timestamptz", pa.array([dt.datetime(2020, 7, 1, tzinfo=UTC)],
                                                         pa.timestamp("ms", "Europe/Berlin")),
                                 ["2020-07-01 00:00:00+00"]),
    "time64": ("time", pa.array([dt.time(23, 59, 59, 999_999), None]), ["23:59:59.999999", None]),
    "time32": ("time", pa.array([5], pa.int32()).view(pa.time32("ms")), ["00:00:00.005"]),
    "time64 in nanoseconds": ("time", raw_times([86_399_999_999_000], pa.time64("ns")), ["23:59:59.999999"]),
    "duration": ("interval", pa.array([dt.timedelta(days=-1, microseconds=3), None]), ["-23:59:59.999997", None]),
    "duration in seconds": ("interval", raw_times([10**10], pa.duration("s")), ["2777777:46:40"]),
    "interval": ("interval", pa.array([pa.MonthDayNano([14, -2, -3_000]), None]),
                 ["1 year 2 mons -2 days -00:00:00.000003", None]),
    "list": ("int4[]", pa.array([[1, None], [], None]), ["{1,NULL}", "{}", None]),
    "list of texts": ("text[]", pa.array([['a"b', "c\\d", "", "NULL", "é,{}"]]), ['{"a\\"b","c\\\\d","","NULL","é,{}"}']),
    "list of bytes": ("bytea[]", pa.array([[b"\x01", None]]), ['{"\\\\x01",NULL}']),
    "list of lists": ("int4[]", pa.array([[[1, 2], [3, None]], None]), ["{{1,2},{3,NULL}}", None]),
    "large_list": ("text[]", pa.array([["a"]], pa.large_list(pa.string())), ["{a}"]),
}
# fmt: on


@pytest.mark.parametrize("name", CASES)
def test_what_arrives(name: str, raw: RawClient) -> None:
    """PostgreSQL's own text of what it was given; NaN and infinities too.  A slice is not its parent."""
    target, values, texts = CASES[name]
    prepared = raw.prepare(f"select ($1::{target})::text as v, pg_typeof($1)::text as t")
    handle = raw.bind(prepared.prepared_statement_handle, pa.record_batch({"p": values}))
    found = raw.run(handle).to_pydict()
    assert found["v"] == texts
    assert len(set(found["t"])) == 1
    sliced = raw.bind(prepared.prepared_statement_handle, pa.record_batch({"p": values}).slice(1))
    assert raw.run(sliced)["v"].to_pylist() == texts[1:]


@pytest.mark.parametrize(
    ("target", "values", "reason"),
    [
        (1114, raw_times([1_001], pa.timestamp("ns")), "nanoseconds"),
        (1083, raw_times([1], pa.time64("ns")), "nanoseconds"),
        (1186, raw_times([1], pa.duration("ns")), "nanoseconds"),
        (1186, pa.array([pa.MonthDayNano([0, 0, 1])]), "nanoseconds"),
        (1114, raw_times([-(2**63)], MICROS), "out of range"),
        (1082, raw_times([1], pa.date64()), "middle of a day"),
        (25, pa.array(["a\0"]), "zero byte"),
        (25, pa.array([b"a"]), "bytea or uuid"),
        (2950, pa.array([b"a"]), "16 bytes"),
        (25, pa.array([{"a": 1}]), "no form"),
        (1009, pa.array([[1]] * (1 << 20) + [[1]]), "elements"),
        (
            1009,
            pa.ListArray.from_arrays([0, 100], pa.DictionaryArray.from_arrays([0] * 100, ["x" * (1 << 20)])),
            "bytes",
        ),
    ],
)
def test_what_is_refused(target: int, values: pa.Array, reason: str) -> None:
    with pytest.raises(RequestError, match=rf"parameter \$1 .*{reason}"):
        text_rows(pa.record_batch({"p": values}), [target])


def test_refusals_of_postgresql_are_typed(raw: RawClient) -> None:
    """Text that is no number, a date that PostgreSQL has not: its own errors."""
    handle = raw.prepare("select $1::int4 as v").prepared_statement_handle
    for values, reason in ((pa.array(["x"]), "22P02"), (pa.array([2**40]), "22003"), (pa.array([1.5]), "22P02")):
        with pytest.raises(pa.ArrowInvalid, match=reason):
            raw.run(raw.bind(handle, pa.record_batch({"p": values})))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0")))))
def test_array_literals_are_read_back(texts: list[str | None]) -> None:
    """Split as PostgreSQL does: quoted elements with backslashes, NULL without quotes."""
    literal = array_literal(texts)
    found: list[str | None] = []
    rest = literal[1:-1]
    while rest:
        if rest.startswith("NULL"):
            found.append(None)
            rest = rest[4:]
        else:
            element, rest = "", rest[1:]
            while not rest.startswith('"'):
                rest = rest[1:] if rest.startswith("\\") else rest
                element, rest = element + rest[0], rest[1:]
            found.append(element)
            rest = rest[1:]
        rest = rest.removeprefix(",")
    assert found == texts


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "float8": st.floats(allow_nan=False),
    "numeric": st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**20), max_value=10**20),
    "timestamp": st.datetimes(),
    "timestamptz": st.datetimes(timezones=st.just(UTC)),
    "date": st.dates(),
    "time": st.times(),
    "text": st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=20),
    "bytea": st.binary(max_size=20),
    "int8": st.integers(-(2**63), 2**63 - 1),
    "interval": st.timedeltas(dt.timedelta(days=-100_000), dt.timedelta(days=100_000)),
}


@pytest.mark.parametrize("target", VALUES)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_values_as_psycopg_sends_them(target: str, database: psycopg.Connection, data: st.DataObject) -> None:
    """What psycopg binds to the same type is the same value to PostgreSQL."""
    values = data.draw(st.lists(VALUES[target], min_size=1, max_size=30))
    texts = text_column(pa.array(values), {"bytea": 17}.get(target, 0))
    different = database.execute(
        f"select mine, theirs from unnest(%s::text[]::{target}[], %s::{target}[]) as both_ (mine, theirs) "
        "where mine is distinct from theirs",
        (texts, values),
    ).fetchall()
    assert different == []
