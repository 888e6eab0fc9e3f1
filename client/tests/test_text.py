"""Values as text: CSV keeps every value apart, and says which column it cannot write."""

import datetime as dt
import decimal
import io
import json
import uuid

import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest

from pgflight import files, text

UUID = uuid.UUID("12345678-9abc-def0-1234-56789abcdef0")
DAY = dt.date(2024, 2, 29)
MOMENT = dt.datetime.fromisoformat("2024-02-29 01:02:03.000004")


def csv_of(array):
    batch = pa.record_batch([array], names=["c"])
    target = io.BytesIO()
    with files.csv_writer(target, batch.schema) as write:
        write(batch)
    return target.getvalue().decode().removeprefix('"c"\n').removesuffix("\n")


def intervals(*values):
    return pa.array([pa.MonthDayNano(value) for value in values], pa.month_day_nano_interval())


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([1, None]), "1\n"),
        (pa.array([True, False]), "true\nfalse"),
        (pa.array(["", None, 'a,"b"\n']), '""\n\n"a,""b""\n"'),
        (pa.array(["x"], pa.string_view()), '"x"'),
        (pa.array(["x"], pa.large_utf8()), '"x"'),
        (pa.array([1.5, float("nan"), float("-inf")]), "1.5\nnan\n-inf"),
        (pa.array([decimal.Decimal("1.50")], pa.decimal128(38, 2)), "1.50"),
        (pa.array([decimal.Decimal("-1.50")], pa.decimal256(60, 2)), "-1.50"),
        (pa.array([DAY]), "2024-02-29"),
        (pa.array([3_000_000], pa.int32()).cast(pa.date32()), "10183-09-21"),
        (pa.array([MOMENT]), "2024-02-29 01:02:03.000004"),
        (pa.array([MOMENT], pa.timestamp("us", "UTC")), "2024-02-29 01:02:03.000004Z"),
        (pa.array([dt.time(1, 2, 3)]), "01:02:03.000000"),
        (pa.nulls(2), "\n"),
        (pa.array([b"\x00\xff", b"", None]), '"\\x00ff"\n"\\x"\n'),
        (pa.array([b"ab"], pa.binary(2)), '"\\x6162"'),
        (pa.array(["a", None]).dictionary_encode(), '"a"\n'),
        (pa.array([b"a"]).dictionary_encode(), '"\\x61"'),
        (pa.array([UUID.bytes, None], pa.uuid()), f'"{UUID}"\n'),
        (pa.array(['{"a":1}'], pa.json_(pa.utf8())), '"{""a"":1}"'),
        (pa.ExtensionArray.from_storage(pa.opaque(pa.int32(), "t", "v"), pa.array([7], pa.int32())), "7"),
    ],
)
def test_csv(array, expected):
    assert csv_of(array) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, 2, 3_500_000_000), "P1M2DT3.5S"),
        ((0, 0, 0), "PT0S"),
        ((14, 0, 0), "P14M"),
        ((0, -1, 0), "P-1D"),
        ((0, 0, -500_000_000), "PT-0.5S"),
        ((-1, 2, -3_000_001_000), "P-1M2DT-3.000001S"),
        ((0, 0, 10_000_000_000), "PT10S"),
    ],
)
def test_intervals_are_iso_8601(value, expected):
    assert csv_of(intervals(value)) == f'"{expected}"'


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([[1, None], []]), [[1, None], []]),
        (pa.array([[1.0, 2.5]], pa.list_(pa.float32(), 2)), [[1.0, 2.5]]),
        (pa.array([[float("nan")]]), [["nan"]]),
        (pa.array([["é"]]), [["é"]]),
        (pa.array([[decimal.Decimal("1.10")]]), [["1.10"]]),
        (pa.array([[b"\x00"]]), [["\\x00"]]),
        (pa.array([[MOMENT, None]]), [["2024-02-29 01:02:03.000004", None]]),
        (pa.array([{"a": 1, "b": [True]}]), [{"a": 1, "b": [True]}]),
        (pa.array([[("k", None)]], pa.map_(pa.utf8(), pa.int64())), [{"k": None}]),
        (pa.ListArray.from_arrays([0, 1], pa.array([UUID.bytes], pa.uuid())), [[str(UUID)]]),
        (pa.ListArray.from_arrays([0, 1], intervals((1, 0, 0))), [["P1M"]]),
    ],
)
def test_nested_values_are_json(array, expected):
    rows = [row[0] for row in text.rows(pa.record_batch([array], names=["c"]))]
    assert [json.loads(row) for row in rows] == expected


def test_null_among_nested_values():
    assert text.rows(pa.record_batch([pa.array([None, [1]])], names=["c"])) == [(None,), ("[1]",)]


def test_a_value_without_text_names_its_column():
    far = pa.ListArray.from_arrays([0, 1], pa.array([3_000_000], pa.int32()).cast(pa.date32()))
    with pytest.raises(pa.ArrowInvalid, match="column 'when' of type list<item: date32"):
        text.for_csv(pa.record_batch([far], names=["when"]))


def test_repeated_keys_are_not_dropped():
    twice = pa.array([[("k", 1), ("k", 2)]], pa.map_(pa.utf8(), pa.int64()))
    with pytest.raises(pa.ArrowInvalid, match=r"column 'c'.*duplicate key"):
        text.for_csv(pa.record_batch([twice], names=["c"]))


def test_csv_reads_back():
    batch = pa.record_batch({"i": [1, None, 3], "s": ["", None, 'a\t"b"\n'], "f": [0.1, None, 1e300]})
    for writer, delimiter in ((files.csv_writer, ","), (files.tsv_writer, "\t")):
        target = io.BytesIO()
        with writer(target, batch.schema) as write:
            write(batch)
        read = pa_csv.read_csv(
            pa.py_buffer(target.getvalue()),
            parse_options=pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(strings_can_be_null=True, quoted_strings_can_be_null=False),
        )
        assert read.to_pylist() == batch.to_pylist()
