"""Results in Polars, pandas, DuckDB and Parquet: every type arrives, and nothing is lost."""

import datetime as dt
import decimal
import json
import uuid

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pgflight import convert

IDS = [uuid.UUID(int=1), None, uuid.UUID(int=2**128 - 1)]
INTERVALS = [pa.MonthDayNano([1, -2, 3]), None, pa.MonthDayNano([-(2**31), 2**31 - 1, -(2**63)])]
PARTS = [
    {"months": 1, "days": -2, "nanoseconds": 3},
    None,
    {"months": -(2**31), "days": 2**31 - 1, "nanoseconds": -(2**63)},
]
LONG, NEGATIVE = "1234567890123456789012345678901234567890.12", "-0.01"
UUIDS = pa.array([value and value.bytes for value in IDS], pa.uuid())
INTERVAL_ARRAY = pa.array(INTERVALS, pa.month_day_nano_interval())
OFFSETS = pa.array([0, 2, 2, 3], pa.int32())

COLUMNS = {
    "id": UUIDS,
    "doc": pa.array(['{"a": 1}', None, "[]"], pa.json_(pa.utf8())),
    "other": pa.ExtensionArray.from_storage(pa.opaque(pa.binary(), "t", "pg"), pa.array([b"\x00", None, b"x"])),
    "ids": pa.ListArray.from_arrays(OFFSETS, UUIDS),
    "tagged": pa.StructArray.from_arrays([UUIDS, pa.array([1, 2, 3])], ["id", "n"]),
    "named": pa.MapArray.from_arrays(OFFSETS, pa.array(["a", "b", "c"]), UUIDS),
    "span": INTERVAL_ARRAY,
    "spans": pa.ListArray.from_arrays(OFFSETS, INTERVAL_ARRAY),
    "pairs": pa.FixedSizeListArray.from_arrays(pa.concat_arrays([INTERVAL_ARRAY, INTERVAL_ARRAY]), 2),
    "long": pa.array([decimal.Decimal(LONG), None, decimal.Decimal(NEGATIVE)], pa.decimal256(60, 2)),
    "wide": pa.array([decimal.Decimal("1.50"), None, None], pa.decimal256(38, 2)),
    "exact": pa.array([decimal.Decimal("1.50"), None, None], pa.decimal128(38, 2)),
    "at": pa.array([dt.datetime(2024, 2, 29, tzinfo=dt.UTC), None, None], pa.timestamp("us", "UTC")),
    "mood": pa.array(["ok", None, "ok"]).dictionary_encode(),
    "vector": pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2)),
    "nothing": pa.nulls(3),
}
EVERYTHING = pa.table(COLUMNS)


@pytest.fixture(scope="module")
def offered(server):
    server.put("everything", EVERYTHING)
    server.put("nothing", EVERYTHING.slice(0, 0))


@pytest.fixture
def everything(client, offered):
    return client.query("everything")


@pytest.fixture
def no_rows(client, offered):
    return client.query("nothing")


def test_arrow_is_untouched(everything):
    assert everything.to_arrow().equals(EVERYTHING)


def test_polars(everything):
    frame = everything.to_polars()
    raw = [value and value.bytes for value in IDS]
    assert frame.schema["id"] == pl.Binary
    assert frame["id"].to_list() == raw
    assert frame.schema["doc"] == pl.String
    assert frame["doc"].str.json_path_match("$.a").to_list() == ["1", None, None]
    assert frame["other"].to_list() == [b"\x00", None, b"x"]
    assert frame["ids"].to_list() == [raw[:2], [], raw[2:]]
    assert frame["tagged"].struct.field("id").to_list() == raw
    assert frame["span"].to_list() == PARTS
    assert frame["spans"].to_list() == [PARTS[:2], [], PARTS[2:]]
    assert frame["long"].to_list() == [LONG, None, NEGATIVE]
    assert frame.schema["wide"] == frame.schema["exact"] == pl.Decimal(38, 2)
    assert frame["wide"][0] == frame["exact"][0] == decimal.Decimal("1.50")
    assert frame.schema["at"] == pl.Datetime("us", "UTC")
    assert frame["mood"].to_list() == ["ok", None, "ok"]
    assert frame.schema["vector"] == pl.Array(pl.Float32, 2)
    assert frame.select("doc", "long", "exact", "at", "mood").write_csv()


def test_polars_without_rows(no_rows, client):
    frame = no_rows.to_polars()
    assert frame.is_empty()
    assert frame.schema == client.query("everything").to_polars().schema


def test_polars_takes_a_stream(client):
    assert pl.DataFrame(client.query("numbers").to_reader())["n"].to_list() == list(range(10_000))


def test_pandas(everything):
    frame = everything.to_pandas()
    assert frame["id"].tolist() in (IDS, [value and value.bytes for value in IDS])  # bytes with pyarrow 21
    assert [list(row) for row in frame["ids"]] == [[IDS[0].bytes, None], [], [IDS[2].bytes]]
    assert frame["tagged"][0] == {"id": IDS[0].bytes, "n": 1}
    assert frame["long"][0] == decimal.Decimal(LONG)
    assert frame["mood"].dtype == "category"
    assert str(frame["at"].dtype) == "datetime64[us, UTC]"
    assert pd.Timestamp(0) + frame["span"][0] == pd.Timestamp("1970-01-30T00:00:00.000000003")


def test_pandas_without_rows(no_rows):
    assert no_rows.to_pandas().empty


def test_pandas_options(client):
    frame = client.query("numbers").to_pandas(types_mapper=pd.ArrowDtype)
    assert str(frame["n"].dtype) == "int64[pyarrow]"


def test_duckdb_takes_a_reader(client):
    relation = duckdb.from_arrow(client.query("numbers"))
    assert relation.sum("n").fetchall() == [(sum(range(10_000)),)]


def test_pyarrow_takes_a_reader(client):
    reader = client.query("numbers")
    assert pa.schema(reader) == reader.schema
    assert pa.table(reader).num_rows == 10_000


def test_parquet(tmp_path):
    batch = EVERYTHING.drop_columns("vector").to_batches()[0]  # pyarrow 21 writes no vectors that are NULL
    prepared = convert.for_parquet(batch)
    assert prepared.schema == convert.parquet_schema(batch.schema)
    pq.write_table(pa.Table.from_batches([prepared]), tmp_path / "t.parquet")
    read = pq.read_table(tmp_path / "t.parquet")
    assert read["span"].to_pylist() == PARTS
    assert read["spans"].to_pylist() == [PARTS[:2], [], PARTS[2:]]
    assert read["pairs"].to_pylist() == [[PARTS[0], PARTS[1]], [PARTS[2], PARTS[0]], [PARTS[1], PARTS[2]]]
    untouched = [name for name in read.column_names if name not in ("span", "spans", "pairs")]
    assert read.select(untouched).to_pylist() == EVERYTHING.select(untouched).to_pylist()


@pytest.mark.parametrize("start", [1, 2])
def test_a_slice_converts_as_the_whole(start):
    whole = convert.for_polars(EVERYTHING)
    assert convert.for_polars(EVERYTHING.slice(start)).to_pylist() == whole.to_pylist()[start:]
    batch = EVERYTHING.to_batches()[0]
    sliced = convert.for_parquet(batch.slice(start))
    sliced.validate(full=True)
    assert sliced.to_pylist() == convert.for_parquet(batch).to_pylist()[start:]


def test_unregistered_extension_types_are_storage_in_polars():
    metadata = {"ARROW:extension:name": "geoarrow.wkb", "ARROW:extension:metadata": json.dumps({})}
    schema = pa.schema([pa.field("geometry", pa.binary(), metadata=metadata)])
    frame = pl.DataFrame(convert.for_polars(pa.table([pa.array([b"\x01"])], schema=schema)))
    assert frame.schema["geometry"] == pl.Binary


def test_columns_of_one_name():
    table = pa.table([INTERVAL_ARRAY, INTERVAL_ARRAY], names=["a", "a"])
    assert convert.for_parquet(table.to_batches()[0]).column_names == ["a", "a"]
    assert convert.for_pandas(table).column_names == ["a", "a"]
