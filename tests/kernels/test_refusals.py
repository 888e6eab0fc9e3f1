"""What Arrow cannot hold is an error that names row and column, or what the client chose; never another value."""

from __future__ import annotations

import itertools
import struct

import pytest

from kernels.column import Column
from kernels.errors import DecodeError, ValueRangeError
from kernels.plan import TypePolicy, plan
from tests.helpers import oracle, wire
from tests.helpers.reading import read

AS_NULL = TypePolicy(infinity="null")
INFINITE = ("date", "timestamp", "timestamptz", "interval")
BEYOND = (
    ("time", "24:00:00"),
    ("timestamp", "294247-01-10 04:00:54.775808"),
    ("timestamp", "294276-12-31 23:59:59.999999"),
    ("timestamptz", "294247-01-10 04:00:54.775808+00"),
    ("timestamptz", "294276-12-31 23:59:59.999999+00"),
    ("interval", "2562047:47:16.854776"),
    ("interval", "-2562047:47:16.854776"),
    ("interval", "2562047788:00:54.775807"),
)
TEXT = 25
INT4 = 23

every_framing = pytest.mark.parametrize("framing", wire.FRAMINGS)


@every_framing
@pytest.mark.parametrize("kind", INFINITE)
@pytest.mark.parametrize("value", ["infinity", "-infinity"])
def test_infinity_is_an_error(kind: str, value: str, framing: str, pool, memory) -> None:
    sql = f"select v from (values (1, null::{kind}), (2, '{value}')) as t(row, v) order by row"
    with pytest.raises(ValueRangeError, match="infinity=null") as caught:
        read(pool, memory, sql, framing=framing)
    assert (caught.value.row, caught.value.column) == (1, "v")


@every_framing
@pytest.mark.parametrize("kind", INFINITE)
def test_infinity_can_be_null(kind: str, framing: str, pool, memory) -> None:
    ordinary = "1 day" if kind == "interval" else "2000-01-02"
    values = ("infinity", ordinary, "-infinity", None, ordinary)
    rows = ", ".join(
        f"({index}, {'null' if value is None else repr(value)})" for index, value in enumerate(values)
    )
    sql = f"select v::{kind} from (values {rows}) as t(row, v) order by row"
    column = read(pool, memory, sql, framing=framing, policy=AS_NULL).column(0)
    assert [value is None for value in column.to_pylist()] == [True, False, True, True, False]
    assert column.null_count == 3


@every_framing
@pytest.mark.parametrize("policy", [TypePolicy(), AS_NULL], ids=["error", "null"])
@pytest.mark.parametrize(("kind", "value"), BEYOND)
def test_beyond_arrow_is_an_error_whatever_the_policy(kind, value, policy, framing: str, pool, memory) -> None:
    sql = f"select n, case when n = 300 then '{value}' end::{kind} as v from generate_series(0, 599) n"
    with pytest.raises(ValueRangeError) as caught:
        read(pool, memory, sql, framing=framing, policy=policy)
    assert (caught.value.row, caught.value.column) == (300, "v")


@every_framing
@pytest.mark.parametrize(
    ("kind", "value"), [*BEYOND, ("date", "infinity"), ("date", "5874897-12-31"), ("interval", "1 mon -1 day")]
)
def test_text_holds_what_arrow_does_not(kind, value, framing: str, pool, memory, database) -> None:
    """The way out that the errors name; in arrays and composites as well."""
    (wanted,) = database.execute(f"select '{value}'::{kind}::text").fetchone()
    sql = f"select '{value}'::{kind} as v, array['{value}'::{kind}, null] as a, daterange(null, null) as r"
    table = read(pool, memory, sql, framing=framing, policy=TypePolicy(temporal="text"))
    assert table.to_pylist() == [{"v": wanted, "a": [wanted, None], "r": "(,)"}]


@every_framing
def test_blanks_can_be_left_out(framing: str, pool, memory) -> None:
    """Those of char(n) alone, and those at the end; the default keeps them."""
    values = ("''", "'a b'", "' x '", "'日本 '", "null", "'     '", "'abcde'")
    rows = ", ".join(f"({row}, {value})" for row, value in enumerate(values))
    sql = "select v::char(5) as v, array[v::char(5), null] as a, v::text || ' ' as t, row(1) as r"
    sql = f"{sql} from (values {rows}) as t(row, v) order by row"
    kept = read(pool, memory, sql, framing=framing)
    table = read(pool, memory, sql, framing=framing, policy=TypePolicy(bpchar="trim"))
    texts = ["", "a b", " x", "日本", None, "", "abcde"]
    assert kept.column("v").to_pylist() == [text and text.ljust(5) if text != "" else " " * 5 for text in texts]
    assert table.column("v").to_pylist() == texts
    assert table.column("a").to_pylist() == [[text, None] for text in texts]
    assert table.column("t").to_pylist() == kept.column("t").to_pylist()


@every_framing
def test_money_as_a_number(framing: str, pool, memory, database) -> None:
    """Of the smallest units, at both ends of the type."""
    values = ("-92233720368547758.08", "-0.01", "0", "92233720368547757.07")
    rows = ", ".join(f"({row}, '{value}'::money)" for row, value in enumerate(values))
    sql = f"select v, array[v, null] as a from (values {rows}) as t(row, v) order by row"
    table = read(pool, memory, sql, framing=framing, policy=TypePolicy(money="int64"))
    wanted = [int(value.replace(".", "")) for value in values]
    wanted[2] = 0
    assert table.column("v").to_pylist() == wanted
    assert table.column("a").to_pylist() == [[value, None] for value in wanted]


@every_framing
@pytest.mark.parametrize("bad", [0, 1, 255, 256, 257, 511, 512, 40_000, 99_999])
def test_the_row_is_counted_over_the_whole_result(bad: int, framing: str, pool, memory) -> None:
    """Over tiles, batches and blocks."""
    sql = f"select n, case when n = {bad} then 'infinity' else '2000-01-01' end::date as d from generate_series(0, 99999) n"
    with pytest.raises(ValueRangeError) as caught:
        read(pool, memory, sql, framing=framing, batch_bytes=64 << 10)
    assert (caught.value.row, caught.value.column) == (bad, "d")
    assert caught.value.offset is not None


@pytest.mark.parametrize("columns", [(0,), (1,), (0, 1), (2, 1)])
def test_the_first_bad_column_of_a_row_is_named(columns: tuple[int, ...]) -> None:
    wrong = [struct.pack("!i", 1)] * 3
    for column in columns:
        wrong[column] = b"\0"
    described = [Column(f"c{index}", INT4) for index in range(3)]
    with pytest.raises(DecodeError) as caught:
        wire.decode(described, wire.reply([wrong], "extended"), "extended")
    assert caught.value.column == f"c{min(columns)}"


@every_framing
def test_null_where_postgresql_promised_none(framing: str) -> None:
    columns = [Column("v", INT4, not_null=True)]
    assert not plan(columns).schema.field(0).nullable
    sound = wire.reply([[struct.pack("!i", 7)]], framing)
    assert wire.decode(columns, sound, framing).to_pylist() == [{"v": 7}]
    with pytest.raises(DecodeError, match="NOT NULL") as caught:
        wire.decode(columns, wire.reply([[None]], framing), framing)
    assert caught.value.column == "v"


def sequences() -> list[bytes]:
    """Return byte sequences around every boundary of UTF-8."""
    edges = (0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF)
    found = [bytes((lead,)) for lead in range(256)]
    found += [bytes((lead, byte)) for lead in range(0x80, 256) for byte in edges]
    found += [
        bytes((lead, *rest)) for lead in range(0xE0, 0xF6) for rest in itertools.product(edges[2:9], repeat=2)
    ]
    leads = (0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xF8, 0xFC)
    found += [
        bytes((lead, *rest))
        for lead in leads
        for rest in itertools.product((0x80, 0x8F, 0x90, 0xBF, 0x41), repeat=3)
    ]
    return found


def text_of(values: list[bytes | None]) -> list[object]:
    """Decode one text column by the kernels."""
    return (
        wire.decode([Column("t", TEXT)], wire.reply([[value] for value in values], "copy"), "copy")
        .column(0)
        .to_pylist()
    )


def test_utf8_is_proven_as_python_proves_it() -> None:
    valid = []
    for sequence in sequences():
        try:
            sequence.decode()
        except UnicodeDecodeError:
            with pytest.raises(DecodeError, match="UTF-8"):
                text_of([sequence])
        else:
            valid.append(sequence)
    assert len(valid) > 500
    assert text_of(list(valid)) == [sequence.decode() for sequence in valid]


@pytest.mark.parametrize("position", [0, 1, 6, 7, 8, 9, 31, 32, 33, 63])
def test_one_bad_byte_anywhere(position: int) -> None:
    """Word-wise and byte-wise checks meet."""
    for size in (position + 1, 64, 65, 71):
        broken = bytearray(b"a" * max(size, position + 1))
        broken[position] = 0xFF
        with pytest.raises(DecodeError, match="UTF-8") as caught:
            text_of([b"ok", None, bytes(broken), b"ok"])
        assert (caught.value.row, caught.value.column) == (2, "t")


def test_a_character_split_over_two_rows_is_two_errors() -> None:
    """Together the column's bytes would be valid."""
    whole = "é".encode()
    with pytest.raises(DecodeError, match="UTF-8") as caught:
        text_of([b"a", whole[:1], whole[1:]])
    assert caught.value.row == 1


def test_bytes_need_not_be_text() -> None:
    sent = [[bytes(range(256))], [b"\xff"]]
    table = wire.decode([Column("b", 17)], wire.reply(sent, "copy"), "copy")
    assert oracle.canonical(table.column(0)) == [bytes(range(256)), b"\xff"]
