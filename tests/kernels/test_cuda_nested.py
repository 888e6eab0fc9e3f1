"""The CUDA twin reads the nested values that the host twin reads, and refuses what it refuses, with the same words."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pyarrow as pa
import pytest

from kernels import host
from kernels.column import Column
from kernels.errors import DecodeError
from kernels.plan import Plan, plan
from kernels.resolve import MAX_DEPTH
from tests.helpers import oracle
from tests.kernels.cuda_twin import (
    SIMULATED,
    decode_block,
    device_decoder,
    every_geometry,
    some,
)
from tests.kernels.fuzz_nested import CASES, PLANS, WORDS, array, composite, items, made, word
from tests.kernels.test_cuda_decode import on_host_planned, rows_of, same_refusal
from tests.kernels.test_nested import BROKEN

pytestmark = pytest.mark.gpu
INT2, INT4, TEXT, FLOAT8 = 21, 23, 25, 701
VECTOR, HALFVEC = 70_001, 70_002
every_case = pytest.mark.parametrize("case", range(len(CASES)))


def vector_column(numbers: int, send: str = "vector_send") -> Column:
    return Column("v", VECTOR, numbers, type_name=send.removesuffix("_send"), send=send)


def vector_bytes(numbers: int, bits: bytes) -> bytes:
    return numbers.to_bytes(2, "big") + b"\0\0" + bits


def facts(array: pa.Array) -> Any:
    """Return all that an array says, node by node: names may repeat, and NaN is not itself."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    kind = array.type
    valid = array.is_valid().to_pylist()
    if pa.types.is_struct(kind):
        return [valid, *(facts(array.field(index)) for index in range(kind.num_fields))]
    if pa.types.is_map(kind):
        return [valid, array.offsets.to_pylist(), facts(array.keys), facts(array.items)]
    if pa.types.is_list(kind):
        return [valid, array.offsets.to_pylist(), facts(array.values)]
    if pa.types.is_fixed_size_list(kind):
        return [valid, facts(array.values)]
    if kind == pa.float16():
        return array.view(pa.uint16()).to_pylist()
    return [array.null_count, oracle.canonical(array)]


def outcome(decode: Any) -> Any:
    """Return what was read, or the error."""
    try:
        return [[batch.num_rows, *map(facts, batch.columns)] for batch in decode()]
    except DecodeError as failure:
        return type(failure), str(failure)


def same(columns: Any, received: bytes, **options: Any) -> Any:
    """Decode a block by both twins."""
    return same_planned(plan(columns), received, **options)


def same_planned(planned: Plan, received: bytes, **options: Any) -> Any:
    """Decode a block by both twins, as planned."""
    options = {"walk": host.scan} | options
    found = outcome(lambda: decode_block(device_decoder(planned, "extended", **options), received))
    assert found == outcome(lambda: on_host_planned(planned, received))
    return found


def mixed(source: random.Random, values: tuple[bytes, ...], rows: int, null_share: float) -> bytes:
    """Frame rows with some fields NULL."""
    return rows_of([[None if source.random() < null_share else value for value in values] for _ in range(rows)])


@every_case
@pytest.mark.parametrize(("rows", "null_share"), some([(1, 0.0), (64, 0.0), (7, 1.0), (100, 0.5), (33, 0.3)], 2))
def test_all_shapes(case: int, rows: int, null_share: float) -> None:
    """Around the boundaries of bitmap words and tiles, on memory that held something else."""
    columns, values = CASES[case]
    found = same(columns, mixed(random.Random(rows), values, rows, null_share))
    assert [batch[0] for batch in found] == [rows]


@pytest.mark.parametrize(("rows", "null_share"), [(1, 0.0), (37, 0.3)])
def test_arrays_of_any_dimensions(rows: int, null_share: float) -> None:
    for planned, values in PLANS[len(CASES) :]:
        found = same_planned(planned, mixed(random.Random(rows), values, rows, null_share))
        assert [batch[0] for batch in found] == [rows]


@every_geometry
def test_every_geometry(geometry: Any) -> None:
    columns, values = CASES[4]
    same(columns, mixed(random.Random(1), values, 40, 0.2), geometry=geometry)


def test_lists_of_every_length() -> None:
    """None, one, and more than a tile; the sums go over many values."""
    source = random.Random(5)
    columns = [Column("i", INT4), array(Column("", INT4)), array(Column("", TEXT))]
    rows = []
    for index in range(60):
        numbers = [source.choice((None, word(index))) for _ in range(source.choice((0, 0, 1, 2, 31, 70)))]
        texts = [
            source.choice((None, b"", b"a", "é".encode(), b"z" * 40)) for _ in range(source.choice((0, 1, 9)))
        ]
        rows.append([word(index), items(INT4, *numbers), items(TEXT, *texts)])
    same(columns, rows_of(rows))
    same(columns, rows_of([[word(1), word(0, 0, INT4), None]] * 40))


def test_a_decoder_goes_on() -> None:
    """Scratch memory grows with a block's parts and keeps what it held; a refusal leaves nothing behind."""
    columns = [array(array(Column("", INT4), 5), 6)]
    planned = plan(columns)
    decoder = device_decoder(planned, "extended")
    for count in (1, 3, 2, 50, 1):
        inner = items(INT4, *[word(count)] * count)
        received = rows_of([[items(5, *[inner, None] * count)], [None]])
        found = outcome(lambda received=received: decode_block(decoder, received))
        assert found == outcome(lambda received=received: on_host_planned(planned, received))
        with pytest.raises(DecodeError, match="do not fill"):
            decode_block(decoder, rows_of([[items(5, inner[:-1])]]))
    assert decoder.rows == 10


@pytest.mark.parametrize("numbers", [1, 3, 33] if SIMULATED else [1, 2, 3, 16, 31, 33, 768, 4001])
@pytest.mark.parametrize(("send", "size"), [("vector_send", 4), ("halfvec_send", 2)])
def test_vectors(numbers: int, send: str, size: int) -> None:
    """All bits of every number, in one matrix; NULLs are zero in it."""
    source = random.Random(numbers)
    columns = [Column("i", INT4), vector_column(numbers, send), array(vector_column(numbers, send))]

    def one() -> bytes | None:
        return None if source.random() < 0.2 else vector_bytes(numbers, source.randbytes(size * numbers))

    rows = 40 if SIMULATED else 700
    received = rows_of([[word(row), one(), items(VECTOR, one(), one())] for row in range(rows)])
    same(columns, received)
    planned = plan(columns[:2])
    block = rows_of([[word(1), one() or vector_bytes(numbers, bytes(size * numbers))]] * 3)
    (batch,) = decode_block(device_decoder(planned, "extended"), block)
    assert batch.column(1).values.buffers()[1].size == 3 * numbers * size


@pytest.mark.parametrize("sent", [
    b"", b"\0\3\0", vector_bytes(2, bytes(8)), vector_bytes(3, bytes(8)), vector_bytes(3, bytes(13)),
    b"\0\3\0\1" + bytes(12), vector_bytes(4, bytes(16)),
])  # fmt: skip
def test_refused_vectors(sent: bytes) -> None:
    good = vector_bytes(3, bytes(12))
    for columns, values in (
        ([vector_column(3)], [[good], [sent], [good]]),
        ([array(vector_column(3))], [[items(VECTOR, good, good)], [items(VECTOR, None, sent)]]),
    ):
        assert same_refusal(columns, values).row == 1


@pytest.mark.parametrize("index", range(len(BROKEN)))
def test_refused_values(index: int) -> None:
    column, value, said = BROKEN[index]
    failure = same_refusal([Column("i", INT4), column], [[None, None], [word(1), value], [None, value]])
    assert said in str(failure)
    assert (failure.row, failure.column) == (1, "v")


def test_the_row_of_a_deep_failure() -> None:
    """Values are counted per node: the way back goes over the offsets of all lists above."""
    column = Column("v", 9, category="A", send="array_send", parts=(made("c", array(Column("", TEXT), 7), oid=8),))
    good = items(8, composite((7, items(TEXT, b"a", b"b"))), None, composite((7, None)))
    wrong = items(8, None, composite((7, items(TEXT, b"a", None, b"\xff"))))
    failure = same_refusal(
        [Column("i", INT4), column], [[word(1), good], [None, None], [None, good], [None, wrong]]
    )
    assert (failure.row, failure.column) == (3, "v")
    assert "UTF-8" in str(failure)


def test_the_deepest_type() -> None:
    """Lists and composites in turn, as deep as types are decoded; one level is a pass over its values."""
    column, value, oid = Column("", TEXT), b"deep", TEXT
    for depth in range(MAX_DEPTH - 1):
        outer = 80_000 + depth
        if depth % 2:
            column, value = made("c", column, oid=outer), composite((oid, value))
        else:
            column, value = array(column, outer), items(oid, None, value)
        oid = outer
    planned = plan([column])
    assert planned.casts == (None,)
    assert len(planned.nodes) == MAX_DEPTH
    same([column], rows_of([[value], [None]]))
    same_refusal([column], [[value[:-1] + b"\xff"]])


@pytest.mark.parametrize("seed", range(5 if SIMULATED else 500))
def test_broken_blocks(seed: int) -> None:
    """Words and bytes inside the rows are damaged: the outcomes are the same, to the last word of the error."""
    source = random.Random(f"nested:{seed}")
    for planned, values in PLANS:
        sound = bytearray(mixed(source, values, 4, 0.1))
        for _ in range(3):
            received = bytearray(sound)
            at = source.randrange(7, len(received) - 4)
            if source.random() < 0.3:
                received[at] ^= 1 << source.randrange(8)
            else:
                received[at : at + 4] = (int(source.choice(WORDS)) & 0xFFFFFFFF).to_bytes(4, "big")
            same_planned(planned, bytes(received))


def test_nested_columns_leave_the_others_alone() -> None:
    """The order of columns is any; scratch memory for text, vectors and places is apart."""
    columns = [
        Column("t", TEXT), array(Column("", TEXT)), vector_column(3), Column("u", TEXT), CASES[2][0][0],
        vector_column(3),
    ]  # fmt: skip
    values = (b"text", items(TEXT, b"x", None, "日本".encode()), vector_bytes(3, word(1, 2, 3)), b"", CASES[2][1][0],
              vector_bytes(3, word(4, 5, 6)))  # fmt: skip
    for permutation in some(list(itertools.permutations(range(6)))[::60], 4):
        chosen = [columns[index] for index in permutation], tuple(values[index] for index in permutation)
        same(chosen[0], mixed(random.Random(1), chosen[1], 35, 0.2))


def test_batches_of_a_block() -> None:
    """A block's rows may be several batches, each with places of its own."""
    columns, values = CASES[5]
    planned = plan(columns)
    received = mixed(random.Random(3), values, 40, 0.2)
    decoder = device_decoder(planned, "extended", batch_bytes=200)
    batches = decode_block(decoder, received)
    assert len(batches) > 1
    assert sum(batch.num_rows for batch in batches) == 40
    whole = [batch.column(0) for batch in on_host_planned(planned, received)]
    assert facts(pa.concat_arrays([batch.column(0) for batch in batches])) == facts(pa.concat_arrays(whole))


@pytest.mark.skipif(SIMULATED, reason="the simulator would take hours")
@every_geometry
def test_large_blocks(geometry: Any) -> None:
    source = random.Random(4)
    for columns, values in CASES:
        planned = plan(columns)
        received = mixed(source, values, 3000, 0.2) * 10
        decoder = device_decoder(planned, "extended", geometry=geometry, batch_bytes=64 << 20)
        (batch,) = decode_block(decoder, received)
        host_batches = on_host_planned(planned, received)
        for index, column in enumerate(batch.columns):
            assert facts(column) == facts(pa.concat_arrays([each.column(index) for each in host_batches]))
