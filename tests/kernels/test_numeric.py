"""numeric: every precision and scale, exactly; the three policies; what no decimal can hold."""

from __future__ import annotations

import random
import struct
from decimal import Context, Decimal

import pyarrow as pa
import pytest

from kernels.column import Column
from kernels.errors import DecodeError, PostgresError, ValueRangeError
from kernels.plan import TypePolicy
from tests.helpers import oracle, wire
from tests.helpers.reading import read

EXACT = Context(prec=2200)
NUMERIC_OID = 1700
FREE = ("0", "0.000", "-0.10", "0.0001", "100.00", "10000", "1e-16383", "-1.5e-16000", "1e131071", "9" * 100 + "." + "9" * 100,
        "NaN", "Infinity", "-Infinity", None)  # fmt: skip


def typmod(precision: int, scale: int) -> int:
    """Encode numeric's type modifier."""
    return ((precision << 16) | (scale & 0x7FF)) + 4


def field(digits: tuple[int, ...], weight: int, sign: int = 0, display: int = 0) -> bytes:
    """Encode a numeric by hand."""
    return struct.pack(f"!hhHH{len(digits)}h", len(digits), weight, sign, display, *digits)


def values(source: random.Random, precision: int) -> list[int]:
    """Return unscaled values of up to `precision` digits: the ends, group boundaries, zeros, anything."""
    top = 10**precision - 1
    found = [0, 1, -1, top, -top, 10 ** (precision - 1), 10 ** (precision // 2), top // 10 * 10]
    found += [10 ** (4 * groups) for groups in range((precision + 3) // 4)]
    found += [source.randint(-top, top) for _ in range(4)]
    found += [source.randint(0, 9) * 10 ** source.randrange(precision) for _ in range(4)]
    return found


def check(pool, memory, framing: str, kinds: list[tuple[int, int]], source: random.Random) -> None:
    """Read columns of all these (precision, scale) at once."""
    columns = [
        [oracle.digits(EXACT.scaleb(Decimal(value), -scale)) for value in values(source, precision)]
        for precision, scale in kinds
    ]
    rows = max(map(len, columns))
    padded = [[*column, *[None] * (rows - len(column))] for column in columns]
    lists = ", ".join(
        "(" + ", ".join("null" if value is None else f"'{value}'" for value in row) + ")"
        for row in zip(*padded, strict=True)
    )
    names = [f"c{index}" for index in range(len(kinds))]
    casts = ", ".join(f"{name}::numeric({p},{s})" for name, (p, s) in zip(names, kinds, strict=True))
    table = read(pool, memory, f"select {casts} from (values {lists}) as t({', '.join(names)})", framing=framing)
    for index, wanted in enumerate(padded):
        column = table.column(index)
        assert oracle.canonical(column) == wanted, f"numeric{kinds[index]} as {column.type}"


@pytest.mark.parametrize("precision", range(1, 77))
def test_every_precision(precision: int, pool, memory) -> None:
    source = random.Random(precision)
    few = {
        -3,
        -1,
        0,
        1,
        2,
        3,
        4,
        5,
        precision - 1,
        precision,
        precision + 1,
        precision + 5,
        -precision,
        38,
        39,
        76,
        77,
    }
    scales = sorted(few | {source.randint(-40, 80) for _ in range(3)})
    kinds = [(precision, scale) for scale in scales]
    check(pool, memory, wire.FRAMINGS[precision % 2], kinds, source)


@pytest.mark.slow
@pytest.mark.parametrize("precision", range(1, 77))
def test_every_precision_and_scale(precision: int, pool, memory) -> None:
    for first in range(-90, 100, 10):
        kinds = [(precision, scale) for scale in range(first, first + 10)]
        check(pool, memory, "extended", kinds, random.Random(first))


@pytest.mark.parametrize(
    ("precision", "scale"), [(3, 1000), (3, -1000), (76, 1000), (76, -900), (77, 0), (100, 50), (1000, 500)]
)
def test_far_scales_and_long_precisions(precision: int, scale: int, pool, memory) -> None:
    """What no Arrow decimal can hold, or print, is exact in some other form."""
    for framing in wire.FRAMINGS:
        check(pool, memory, framing, [(precision, scale)], random.Random(1))


@pytest.mark.parametrize("precision", [1, 4, 5, 9, 18, 19, 38, 39, 57, 76])
def test_decimals_are_as_narrow_as_arrow_allows(precision: int, pool, memory) -> None:
    sql = f"select 0::numeric({precision},1)"
    wanted = pa.decimal128(precision, 1) if precision <= 38 else pa.decimal256(precision, 1)
    assert read(pool, memory, sql).schema.field(0).type == wanted


def free(database, kind: str = "numeric", literals: tuple[str | None, ...] = FREE) -> list[str | None]:
    """Make scratch.t; return the texts of its values."""
    database.execute(f"create table scratch.t (row int, v {kind})")
    with database.cursor() as cursor, cursor.copy("copy scratch.t from stdin") as copy:
        for row in enumerate(literals):
            copy.write_row(row)
    return [text for (text,) in database.execute("select v::text from scratch.t order by row").fetchall()]


@pytest.mark.parametrize("framing", wire.FRAMINGS)
@pytest.mark.parametrize("numeric", ["decimal", "string"])
def test_unconstrained_is_a_string(numeric, framing: str, database, pool, memory) -> None:
    """Its scale is each value's own; every digit of it is kept."""
    wanted = free(database)
    table = read(
        pool, memory, "select v from scratch.t order by row", framing=framing, policy=TypePolicy(numeric=numeric)
    )
    assert table.schema.field(0).type == pa.string()
    assert table.column(0).to_pylist() == wanted
    assert len(wanted[8] or "") == 131_072


def test_string_keeps_what_decimal_refuses(database, pool, memory) -> None:
    wanted = free(database, "numeric(10,2)", ("1", "0", "-0.10", "NaN", None))
    assert wanted == ["1.00", "0.00", "-0.10", "NaN", None]
    table = read(pool, memory, "select v from scratch.t order by row", policy=TypePolicy(numeric="string"))
    assert table.column(0).to_pylist() == wanted


@pytest.mark.parametrize("kind", ["numeric", "numeric(10,2)"])
def test_float64_is_postgresqls_own_conversion(kind: str, database, pool, memory) -> None:
    free(database, kind, ("1.1", "0", "-0.10", "NaN", "12345678.91", None))
    wanted = database.execute("select float8send(v::float8) from scratch.t order by row").fetchall()
    for framing in wire.FRAMINGS:
        table = read(
            pool,
            memory,
            "select v from scratch.t order by row",
            framing=framing,
            policy=TypePolicy(numeric="float64"),
        )
        assert table.schema.field(0).type == pa.float64()
        bits = [None if value is None else int.from_bytes(value, "big") for (value,) in wanted]
        assert oracle.canonical(table.column(0)) == bits


def test_float64_out_of_range_is_postgresqls_error(pool, memory) -> None:
    for framing in wire.FRAMINGS:
        with pytest.raises(PostgresError) as caught:
            read(pool, memory, "select 1e400 as v", framing=framing, policy=TypePolicy(numeric="float64"))
        assert caught.value.sqlstate == "22003"


@pytest.mark.parametrize("framing", wire.FRAMINGS)
def test_nan_is_no_decimal(framing: str, pool, memory) -> None:
    sql = "select g, case when g = 700 then 'NaN'::numeric else g end::numeric(10,2) as v from generate_series(0, 999) g"
    with pytest.raises(ValueRangeError, match="numeric=string") as caught:
        read(pool, memory, sql, framing=framing)
    assert (caught.value.row, caught.value.column) == (700, "v")


@pytest.mark.parametrize(
    ("sent", "wanted"),
    [
        (field((), 0), "0.00"),
        (field((), 0, 0x4000), "0.00"),
        (field((), 7, 0, 5), "0.00"),
        (field((1,), 0, 0, 9999), "1.00"),
        (field((9999, 9999, 9900), 1), "99999999.99"),
        (field((9999, 9999, 9900), 1, 0x4000), "-99999999.99"),
        (field((1, 0, 100), 1), "10000.01"),
    ],
)
def test_fields_by_hand(sent: bytes, wanted: str) -> None:
    columns = [Column("v", NUMERIC_OID, typmod(10, 2))]
    for framing in wire.FRAMINGS:
        table = wire.decode(columns, wire.reply([[sent], [None], [sent]], framing), framing)
        assert oracle.canonical(table.column(0)) == [wanted, None, wanted]


TEN_DIGITS = [
    (field((1000,), -2), ValueRangeError),  # 10 ** -5, below the scale
    (field((1, 1), 0), ValueRangeError),  # 1.0001
]
ALL_DIGITS = [
    (field((1, 0, 0), 2), ValueRangeError),  # 10 ** 8, one digit too many
    (field((1,), 32767), ValueRangeError),
    (field((1,), -32768), ValueRangeError),
    (field((), 0, 0xC000), ValueRangeError),
    (field((), 0, 0xD000, 0x20), ValueRangeError),
    (field((), 0, 0xF000, 0x20), ValueRangeError),
    (field((), 0, 0x8000), DecodeError),
    (field((), 0, 0x0001), DecodeError),
    (field((10_000,), 0), DecodeError),
    (field((-1,), 0), DecodeError),
    (field((1, 10_000, 1), 1), DecodeError),
    (field((1,), 0) + b"\0", DecodeError),
    (field((1,), 0)[:-1], DecodeError),
    (struct.pack("!hhHH", -1, 0, 0, 0), DecodeError),
    (struct.pack("!hhHH", 32767, 0, 0, 0), DecodeError),
    (b"", DecodeError),
    (b"\0" * 7, DecodeError),
]


@pytest.mark.parametrize(
    ("precision", "sent", "error"),
    [(10, *case) for case in TEN_DIGITS]
    + [(precision, *case) for case in ALL_DIGITS for precision in (10, 30, 50)],
)
def test_refused_fields(precision: int, sent: bytes, error: type[DecodeError]) -> None:
    """The narrow, the wide and the widest routine refuse alike."""
    columns = [Column("id", 23), Column("v", NUMERIC_OID, typmod(precision, precision - 8))]
    one = struct.pack("!i", 1)
    for framing in wire.FRAMINGS:
        with pytest.raises(error) as caught:
            wire.decode(columns, wire.reply([[one, None], [one, sent]], framing), framing)
        assert type(caught.value) is error
        assert (caught.value.row, caught.value.column) == (1, "v")
