"""Arrays, composites, ranges, maps and vectors: values against PostgreSQL's, and what has no Arrow form."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from kernels.column import Column
from kernels.errors import DecodeError, ValueRangeError
from kernels.plan import TypePolicy, plan
from tests.helpers import oracle, wire
from tests.helpers.reading import read
from tests.kernels.test_types import EXTENSIONS, SETUP, fill
from tests.kernels.type_cases import CASES, Case

every_framing = pytest.mark.parametrize("framing", wire.FRAMINGS)
INT4, TEXT = 23, 25
ARRAY = Column("v", 1007, kind="b", category="A", send="array_send", parts=(Column("", INT4),))
RANGE = Column("v", 3904, kind="r", category="R", send="range_send", parts=(Column("", INT4),))


def nothing_lost(value: Any) -> Any:
    """Floats by their digits: NaN equals NaN, and -0 is not 0."""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, dict):
        return {key: nothing_lost(part) for key, part in value.items()}
    return [nothing_lost(part) for part in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.row}-{case.ddl}")
def test_arrays_of_every_type(case: Case, database, pool, memory) -> None:
    """The elements of arrays are what the column's values are; so are those of composites, and of arrays of them."""
    database.execute(SETUP)
    fill(database, case)
    database.execute("delete from scratch.t where v is null" if case.ddl == "scratch.price" else "select")
    kind = f"scratch.{case.ddl}" if case.row in EXTENSIONS else case.ddl
    column = read(pool, memory, "select v from scratch.t order by row").column(0)
    values = oracle.canonical(column)
    database.execute(f"create type scratch.nest as (w {kind}, ws {kind}[])")
    rows = "array(select {} as x from scratch.t order by scratch.t.row)"
    for framing in wire.FRAMINGS:
        sql = f"select {rows.format('v')}::{kind}[] as a, '{{}}'::{kind}[] as e, null::{kind}[] as n"
        table = read(pool, memory, sql, framing=framing)
        assert table.schema.field("a").type == pa.list_(column.type)
        assert oracle.canonical(table.column("a").chunk(0).values) == values
        assert table.select(["e", "n"]).to_pylist() == [{"e": [], "n": None}]
        sql = f"select {rows.format('row(v, array[v, v])::scratch.nest')} as c"
        found = read(pool, memory, sql, framing=framing).column(0).chunk(0).values
        if isinstance(found, pa.StructArray):
            assert oracle.canonical(found.field("w")) == values
            assert oracle.canonical(found.field("ws").values) == [value for value in values for _ in range(2)]
        else:  # a part must be cast: text as a whole
            assert found.type == pa.string()
            assert (
                found.to_pylist()
                == database.execute(sql.replace("::scratch.nest", "::scratch.nest::text")).fetchone()[0]
            )


def test_shapes(database, pool, memory) -> None:
    database.execute(SETUP + """
        create extension hstore schema scratch;
        create type scratch.deep as (p scratch.pair, ps scratch.pair[], r int4range, h scratch.hstore);
        create table scratch.n (row int, d scratch.deep, ds scratch.deep[], c scratch.count[], w vector(3), u vector,
            ws vector(2)[], hv halfvec(2), m int4multirange[], t tstzrange);
        insert into scratch.n values
        (1, row(row(1, 'x'), array[row(2, 'é'), null]::scratch.pair[], '[1,5)', 'a=>1, b=>NULL'), null, '{1,2}',
         '[1,2.5,-3]', '[1,2]', array['[1,2]', null]::vector[], '[1.5,-2]', '{"{[1,2),[5,)}",NULL,"{}"}', 'empty'),
        (2, null, array[null, row(row(null, null), '{}', '(,)', '')]::scratch.deep[], null, null, null, null, null,
         null, null),
        (3, row(null, null, null, null), '{}', '{}', '[0,0,-0]', '[7]', '{}', '[0,0]', '{}', '[2020-01-01 00:00+00,)')
    """)  # fmt: skip
    span = {"lower": 1, "upper": 5, "flags": 2}
    nothing = {"p": None, "ps": None, "r": None, "h": None}
    wanted = [
        {"row": 1, "d": {"p": {"a": 1, "b": "x"}, "ps": [{"a": 2, "b": "é"}, None], "r": span,
                         "h": [("a", "1"), ("b", None)]},
         "ds": None, "c": [1, 2], "w": [1.0, 2.5, -3.0], "u": [1.0, 2.0], "ws": [[1.0, 2.0], None], "hv": [1.5, -2.0],
         "m": [[{"lower": 1, "upper": 2, "flags": 2}, {"lower": 5, "upper": None, "flags": 18}], None, []],
         "t": {"lower": None, "upper": None, "flags": 1}},
        {"row": 2, "d": None,
         "ds": [None, {"p": {"a": None, "b": None}, "ps": [],
                       "r": {"lower": None, "upper": None, "flags": 24}, "h": []}],
         "c": None, "w": None, "u": None, "ws": None, "hv": None, "m": None, "t": None},
        {"row": 3, "d": nothing, "ds": [], "c": [], "w": [0.0, 0.0, -0.0], "u": [7.0], "ws": [], "hv": [0.0, 0.0],
         "m": [], "t": {"lower": dt.datetime(2020, 1, 1, tzinfo=dt.UTC), "upper": None, "flags": 18}},
    ]  # fmt: skip
    for framing in wire.FRAMINGS:
        for batch_bytes in (64, 1 << 20):
            table = read(
                pool, memory, "select * from scratch.n order by row", framing=framing, batch_bytes=batch_bytes
            )
            assert nothing_lost(table.to_pylist()) == nothing_lost(wanted)
    assert table.schema.field("w").type == pa.list_(pa.float32(), 3)
    assert table.schema.field("hv").type == pa.list_(pa.float16(), 2)
    assert table.schema.field("u").metadata[b"pg:cast"] == b"float4[]"
    text = read(pool, memory, "select d, w, c from scratch.n order by row", policy=TypePolicy(nested="text"))
    assert text.column(1).to_pylist() == ["[1,2.5,-3]", None, "[0,0,-0]"]
    assert text.column(2).to_pylist() == ["{1,2}", None, "{}"]


def test_vectors_are_one_matrix(pool, memory) -> None:
    """NumPy and its kin see a batch's vectors without a copy."""
    (batch,) = read(
        pool, memory, "select array[g, 2, 3]::vector(3) as v from generate_series(1, 100) g"
    ).to_batches()
    numbers = batch.column(0).flatten()
    matrix = numbers.to_numpy(zero_copy_only=True).reshape(-1, 3)
    assert matrix.ctypes.data == numbers.buffers()[1].address
    assert matrix[99].tolist() == [100, 2, 3]
    del batch, numbers, matrix


@every_framing
def test_many_rows(framing: str, pool, memory) -> None:
    """Tiles, batches and blocks end anywhere."""
    sql = (
        "select g, array(select case when i % 7 <> 0 then i end from generate_series(1, g % 40) i) as a,"
        " array(select i::text || 'é' from generate_series(1, g % 5) i) as t,"
        " case when g % 3 <> 0 then int8range(g, g + 1) end as r, (g % 10)::numeric(5, 2) as n,"
        " array[(g % 10)::numeric(5, 2)] as ns from generate_series(1, 3000) g"
    )
    table = read(pool, memory, sql, framing=framing, batch_bytes=20_000)
    assert table.num_rows == 3000
    for g, row in enumerate(table.to_pylist(), 1):
        assert row["a"] == [i if i % 7 else None for i in range(1, g % 40 + 1)]
        assert row["t"] == [f"{i}é" for i in range(1, g % 5 + 1)]
        assert row["r"] == ({"lower": g, "upper": g + 1, "flags": 2} if g % 3 else None)
        assert row["ns"] == [row["n"]] == [Decimal(g % 10)]


@pytest.mark.parametrize(("value", "said"), [
    ("'{{1,2},{3,4}}'", "several dimensions"), ("'[5:6]={1,2}'", "lower bound"), ("'[0:0]={1}'", "lower bound"),
])  # fmt: skip
def test_arrays_without_a_list_form(value: str, said: str, pool, memory) -> None:
    """The default is an error that names row, column and the ways out, which are exact."""
    sql = f"select v from (values (1, null), (2, {value}::int4[])) as t(row, v) order by row"
    with pytest.raises(ValueRangeError, match=f"{said}.*arrays=nd or arrays=text") as raised:
        read(pool, memory, sql)
    assert (raised.value.row, raised.value.column) == (1, "v")
    for policy in (TypePolicy(nested="text"), TypePolicy(arrays="text")):
        assert read(pool, memory, sql, policy=policy).column(0).to_pylist() == [None, value.strip("'")]


@every_framing
def test_arrays_of_any_dimensions(framing: str, pool, memory) -> None:
    """Dimensions, bounds and values; elements that PostgreSQL casts keep them, and so do arrays in composites."""
    values = ("'{{1,NULL},{3,4}}'", "'[5:6]={1,2}'", "'[0:0][-2:-1]={{7,8}}'", "'{}'", "null", "'{9}'")
    rows = ", ".join(f"({row}, {value})" for row, value in enumerate(values))
    sql = (
        "select v::int4[] v, v::int4[]::oid[]::regclass[] as r, ('{\"(1,2)\"}'::point[]) as p, v::int2[]::text[] t"
    )
    sql = f"{sql} from (values {rows}) as t(row, v) order by row"
    table = read(pool, memory, sql, framing=framing, policy=TypePolicy(arrays="nd"))
    found = [row and tuple(row.values()) for row in table.column("v").to_pylist()]
    assert found == [
        ([2, 2], [1, 1], [1, None, 3, 4]), ([2], [5], [1, 2]), ([1, 2], [0, -2], [7, 8]), ([], [], []), None,
        ([1], [1], [9]),
    ]  # fmt: skip
    texts = [row and tuple(row.values()) for row in table.column("t").to_pylist()]
    assert texts == [
        row and (*row[:2], [None if value is None else str(value) for value in row[2]]) for row in found
    ]
    assert table.column("p")[0].as_py() == {"dims": [1], "lower_bounds": [1], "values": ["(1,2)"]}
    assert table.column("r").to_pylist() == table.column("v").to_pylist()
    assert table.schema.field("v").type == pa.struct(
        [("dims", pa.list_(pa.int32())), ("lower_bounds", pa.list_(pa.int32())), ("values", pa.list_(pa.int32()))]
    )


def test_vectors_of_smallints_stay_lists(pool, memory) -> None:
    """An int2vector has one dimension and the lower bound 0: a list loses nothing."""
    table = read(pool, memory, "select '1 2'::int2vector as v", policy=TypePolicy(arrays="nd"))
    assert table.to_pylist() == [{"v": [1, 2]}]


def array(*words: int, tail: bytes = b"") -> bytes:
    """Make an array's bytes."""
    return b"".join((word & 0xFFFFFFFF).to_bytes(4, "big") for word in words) + tail


BROKEN = [
    (ARRAY, array(1, 0, INT4)[:8], "parts do not fill"),
    (ARRAY, array(-1, 0, INT4), "parts do not fill"),
    (ARRAY, array(7, 0, INT4, *[1, 1] * 7), "parts do not fill"),
    (ARRAY, array(0, 0, INT4, 0), "do not fill"),
    (ARRAY, array(0, 2, INT4), "parts do not fill"),
    (ARRAY, array(0, 0, TEXT), "another type"),
    (ARRAY, array(1, 0, INT4, -1, 1), "parts do not fill"),
    (ARRAY, array(1, 0, INT4, 2**31 - 1, 1), "parts do not fill"),
    (ARRAY, array(1, 0, INT4, 1, 1), "parts do not fill"),
    (ARRAY, array(1, 0, INT4, 1, 1, 4), "parts do not fill"),
    (ARRAY, array(1, 0, INT4, 1, 1, 2**31 - 1, 7), "parts do not fill"),
    (ARRAY, array(1, 0, INT4, 1, 1, -2, 7), "parts do not fill"),
    (ARRAY, array(1, 0, INT4, 1, 1, 4, 7, 7), "do not fill"),
    (ARRAY, array(1, 0, INT4, 1, 1, 3, tail=b"abc"), "length does not fit"),
    (ARRAY, array(6, 0, INT4, *[2**31 - 1, 1] * 6), "do not fill"),
    (RANGE, b"", "do not fill"),
    (RANGE, b"\x20", "do not fill"),
    (RANGE, b"\x02", "do not fill"),
    (RANGE, b"\x01\0\0\0\0", "do not fill"),
    (RANGE, b"\x0a" + array(-1), "do not fill"),
    (RANGE, b"\x0a" + array(4), "do not fill"),
]


@every_framing
@pytest.mark.parametrize(("column", "value", "said"), BROKEN)
def test_broken(column: Column, value: bytes, said: str, framing: str) -> None:
    """With row, column and offset."""
    received = wire.reply([[None], [None], [value], [None]], framing)
    with pytest.raises(DecodeError, match=said) as raised:
        wire.decode([column], received, framing)
    assert (raised.value.row, raised.value.column) == (2, "v")
    assert received.index(value) - 4 <= raised.value.offset <= len(received)


def test_depth_is_bounded() -> None:
    """Deeper types are text."""
    column = Column("v", INT4)
    for _ in range(40):
        column = Column("v", 70_000, kind="c", category="C", send="record_send", parts=(column,))
    assert plan([column]).casts == ("text",)


def test_extensions_are_known() -> None:
    assert EXTENSIONS.keys() <= {case.row for case in CASES}
