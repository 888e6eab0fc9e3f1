"""The CUDA twin reads the values that the host twin reads, and refuses what it refuses."""

from __future__ import annotations

import itertools
import random
import struct

import numpy as np
import pyarrow as pa
import pytest

from kernels import host, layout
from kernels.backend import CudaBackend, select_backend, warm_up
from kernels.column import Column
from kernels.decoder import Decoder, Scan
from kernels.errors import DecodeError, ValueRangeError
from kernels.plan import TypePolicy, plan
from tests.helpers import oracle, wire
from tests.kernels import fuzz_replies
from tests.kernels import record_golden as golden
from tests.kernels.cuda_twin import (
    GEOMETRIES,
    ROUNDS,
    SIMULATED,
    STALE,
    broken,
    decode_block,
    device_decoder,
    download,
    make_decoder,
    on_device,
    some,
    stale,
)
from tests.kernels.test_numeric import ALL_DIGITS, TEN_DIGITS, field, typmod
from tests.kernels.test_refusals import sequences

pytestmark = pytest.mark.gpu
BOOL, BYTEA, INT8, INT2, INT4, TEXT, DATE, NUMERIC, UUID, INTERVAL, JSONB = (
    16, 17, 20, 21, 23, 25, 1082, 1700, 2950, 1186, 3802,
)  # fmt: skip
ALL_SHAPES = [
    Column("bool", BOOL), Column("small", INT2), Column("int", INT4), Column("big", INT8), Column("day", DATE),
    Column("text", TEXT), Column("bytes", BYTEA), Column("json", JSONB), Column("uuid", UUID),
    Column("gap", INTERVAL), Column("narrow", NUMERIC, typmod(10, 2)), Column("wide", NUMERIC, typmod(60, 9)),
]  # fmt: skip


def rows_of(values: list[list[bytes | None]]) -> bytes:
    """Frame rows of the extended protocol."""
    return b"".join(wire.message(b"D", wire.row(fields)) for fields in values)


def on_host(columns, received: bytes) -> list[pa.RecordBatch]:
    """Decode one block by the host twin, whatever twin the other tests use."""
    decoder = Decoder(plan(columns), select_backend("cpu"), wire.Memory, kind=ord("D"), batch_bytes=1 << 20)
    block = np.frombuffer(received + bytes(layout.WIRE_PAD_BYTES), np.uint8).copy()
    batches, found = [], Scan(0, 0, layout.SCAN_FULL)
    while found.reason == layout.SCAN_FULL:
        found = decoder.scan(block, found.position, len(received))
        if found.rows:
            batches.append(decoder.decode(block, found))
    return batches


def table(batches: list[pa.RecordBatch]) -> tuple[list, list[int]]:
    """Return the canonical columns and their null counts."""
    if not batches:
        return [], []
    whole = pa.Table.from_batches(batches)
    return [oracle.canonical(column) for column in whole.columns], [column.null_count for column in whole.columns]


def random_rows(source: random.Random, rows: int, null_share: float) -> list[list[bytes | None]]:
    """Return sound fields of `ALL_SHAPES`."""
    words = ["", "a", "é", "日本", "🐘", "x" * 7, "y" * 16, "z" * 17, "ü" * 40, "long " * 60]
    numerics = [field(*parts) for parts in (((), 0), ((1,), 0, 0x4000), ((9999, 9999, 9900), 1), ((1, 5000), 0))]

    def fields() -> list[bytes]:
        text = source.choice(words).encode()
        return [
            bytes([source.getrandbits(1)]), source.randbytes(2), source.randbytes(4),
            source.randbytes(8), struct.pack("!i", source.randint(-10_000, 10_000)), text,
            source.randbytes(source.choice((0, 1, 3, 8, 15, 16, 17, 90))), b"\1" + text, source.randbytes(16),
            struct.pack("!qii", source.randint(-(10**15), 10**15), *struct.unpack("!ii", source.randbytes(8))),
            source.choice(numerics),
            field(tuple(source.randint(1, 9999) for _ in range(source.randint(0, 9))), 6, source.choice((0, 0x4000))),
        ]  # fmt: skip

    return [[None if source.random() < null_share else value for value in fields()] for _ in range(rows)]


@pytest.mark.parametrize("rows", some([1, 32, 33, 64, 31, 100, 65], 2))
@pytest.mark.parametrize("null_share", [0.0, 0.3, 1.0])
def test_all_shapes(rows: int, null_share: float) -> None:
    """Around the boundaries of bitmap words and tiles, on memory that held something else."""
    received = rows_of(random_rows(random.Random(rows), rows, null_share))
    found = decode_block(device_decoder(plan(ALL_SHAPES), "extended"), received)
    assert table(found) == table(on_host(ALL_SHAPES, received))


def test_other_forms() -> None:
    """Text without the blanks at its end, and money as a number."""
    columns = [Column("blank", 1042), Column("money", 790), Column("kept", TEXT)]
    planned = plan(columns, TypePolicy(bpchar="trim", money="int64"))
    texts = [b"", b" ", b"a    ", b" a b ", "日本  ".encode(), b" " * 70, b"x" * 33 + b" " * 40, None]
    received = rows_of([[text, struct.pack("!q", index - 2), text] for index, text in enumerate(texts * 5)])
    found = on_device_planned(planned, received)
    assert table(found) == table(on_host_planned(planned, received))
    column = pa.concat_arrays([batch.column(0) for batch in found])
    assert column.to_pylist() == [None if text is None else text.decode().rstrip(" ") for text in texts * 5]


@pytest.mark.parametrize("seed", range(50 * ROUNDS))
def test_broken_blocks(seed: int) -> None:
    """Both accept the same blocks and read the same values; where they refuse, the oracle does too."""
    recording, received = broken(seed, "extended")
    planned = plan(recording.columns, golden.policy(recording.name))
    outcomes = []
    for decode in (on_host_planned, on_device_planned):
        try:
            outcomes.append(table(decode(planned, received)))
        except DecodeError as failure:
            fuzz_replies.check_place(recording, received, failure)
            outcomes.append("refused")
    assert outcomes[0] == outcomes[1]


def on_host_planned(planned, received: bytes) -> list[pa.RecordBatch]:
    decoder = Decoder(planned, select_backend("cpu"), wire.Memory, kind=ord("D"), batch_bytes=1 << 20)
    block = np.frombuffer(received + bytes(layout.WIRE_PAD_BYTES), np.uint8).copy()
    batches, found = [], Scan(0, 0, layout.SCAN_FULL)
    while found.reason == layout.SCAN_FULL:
        found = decoder.scan(block, found.position, len(received))
        if found.rows:
            batches.append(decoder.decode(block, found))
    return batches


def on_device_planned(planned, received: bytes) -> list[pa.RecordBatch]:
    return decode_block(device_decoder(planned, "extended", walk=host.scan), received)


def refusal(columns, values: list[list[bytes | None]]) -> DecodeError:
    """Return the error of a block."""
    with pytest.raises(DecodeError) as caught:
        decode_block(device_decoder(plan(columns), "extended"), rows_of(values))
    return caught.value


def same_refusal(columns, values: list[list[bytes | None]]) -> DecodeError:
    """Return the error of a block, which both twins refuse with the same words, place and type."""
    found = refusal(columns, values)
    with pytest.raises(DecodeError) as caught:
        on_host(columns, rows_of(values))
    assert (type(found), str(found)) == (type(caught.value), str(caught.value))
    return found


NUMERIC_FAILURES = [(10, *case) for case in TEN_DIGITS] + [
    (precision, *case) for case in ALL_DIGITS for precision in (10, 30, 50)
]


@pytest.mark.parametrize(("precision", "sent", "error"), some(NUMERIC_FAILURES, 2))
def test_refused_numerics(precision: int, sent: bytes, error: type[DecodeError]) -> None:
    columns = [Column("id", INT4), Column("v", NUMERIC, typmod(precision, precision - 8))]
    one = struct.pack("!i", 1)
    failure = same_refusal(columns, [[one, None], [one, sent], [one, None]])
    assert (type(failure), failure.row, failure.column) == (error, 1, "v")


FIXED_FAILURES = [
    (BOOL, b"\2", DecodeError), (BOOL, b"", DecodeError), (INT4, b"123", DecodeError), (INT8, b"", DecodeError),
    (UUID, bytes(15), DecodeError), (INTERVAL, bytes(17), DecodeError), (JSONB, b"", DecodeError),
    (JSONB, b"\2{}", DecodeError), (TEXT, b"\xff", DecodeError), (DATE, b"\x7f\xff\xff\xff", ValueRangeError),
    (DATE, b"\x80\0\0\0", ValueRangeError), (1083, struct.pack("!q", 86_400_000_000), ValueRangeError),
    (1114, struct.pack("!q", 2**63 - 2), ValueRangeError), (INTERVAL, struct.pack("!qii", 2**62, 0, 0), ValueRangeError),
    (INTERVAL, b"\x7f" + b"\xff" * 7 + b"\x7f\xff\xff\xff" * 2, ValueRangeError),
]  # fmt: skip


@pytest.mark.parametrize(("oid", "sent", "error"), FIXED_FAILURES)
def test_refused_fields(oid: int, sent: bytes, error: type[DecodeError]) -> None:
    columns = [Column("id", INT4), Column("v", oid)]
    one = struct.pack("!i", 1)
    for tail in ([], [[one, None]]):
        failure = same_refusal(columns, [[one, None]] * 34 + [[one, sent], *tail])
        assert (type(failure), failure.row, failure.column) == (error, 34, "v")


def test_the_first_of_many_failures_is_named() -> None:
    """The smallest row, then the first column; text is looked at when all fields are sound."""
    columns = [Column("a", INT4), Column("t", TEXT), Column("b", INT4)]
    one, bad = struct.pack("!i", 1), b"\0"
    values: list[list[bytes | None]] = [[one, b"ok", one] for _ in range(90)]
    for row, column in ((80, 0), (70, 2), (70, 0), (71, 0), (5, 1), (9, 1)):
        values[row][column] = b"\xff" if column == 1 else bad
    failure = refusal(columns, values)
    assert (failure.row, failure.column) == (70, "a")
    for row in (80, 70, 71):
        values[row] = [one, b"ok", one]
    failure = refusal(columns, values)
    assert (failure.row, failure.column) == (5, "t")
    assert failure.offset == len(rows_of(values[:5])) + 5 + 2 + 8 + 4


def test_a_field_that_leaves_its_row() -> None:
    """What follows in the block would make it whole: it must not be read."""
    one = struct.pack("!i", 1)
    inside = struct.pack("!hi", 2, 4) + one + struct.pack("!i", 9)
    received = wire.message(b"D", inside) + rows_of([[one, b"x" * 40]] * 3)
    for columns in (
        [Column("a", INT4), Column("t", TEXT)],
        [Column("a", INT4), Column("b", NUMERIC, typmod(9, 2))],
    ):
        with pytest.raises(DecodeError, match="do not end where the row ends") as caught:
            decode_block(device_decoder(plan(columns), "extended"), received)
        assert (caught.value.row, caught.value.column) == (0, columns[1].name)
    for tail in (b"\0", struct.pack("!i", -1)):
        with pytest.raises(DecodeError, match="do not end where the row ends"):
            decode_block(
                device_decoder(plan([Column("a", INT4)]), "extended"), wire.message(b"D", wire.row([one]) + tail)
            )


def test_utf8_is_proven_as_python_proves_it() -> None:
    """Each sequence alone; then all valid ones in one block, between others of all lengths."""
    columns, valid = [Column("t", TEXT)], []
    for sequence in some(sequences(), 60):
        try:
            sequence.decode()
        except UnicodeDecodeError:
            assert "UTF-8" in str(refusal(columns, [[b"ok"], [sequence]]))
        else:
            valid.append(sequence)
    padded = [b"x" * (index % 19) + sequence + b"y" * (index % 7) for index, sequence in enumerate(valid)]
    found = decode_block(device_decoder(plan(columns), "extended"), rows_of([[value] for value in padded]))
    assert table(found)[0] == [[value.decode() for value in padded]]


@pytest.mark.parametrize("size", some([7, 8, 9, 15, 16, 17, 33, 64], 3))
def test_characters_on_the_borders_of_pieces(size: int) -> None:
    """Values shared by several threads, and characters split over two values."""
    whole = ("é日🐘" * size).encode()
    columns = [Column("t", TEXT)]
    found = decode_block(
        device_decoder(plan(columns), "extended"), rows_of([[b"x" * size], [whole], [b""], [whole]])
    )
    assert table(found)[0] == [["x" * size, whole.decode(), "", whole.decode()]]
    for cut in {1, 3, 4, 7, len(whole) - 1}:
        assert refusal(columns, [[b"ok"], [whole[:cut]], [whole[cut:]]]).row == 1
    for at in range(0, len(whole), max(1, len(whole) // 5)):
        wrong = whole[:at] + b"\xff" + whole[at + 1 :]
        assert refusal(columns, [[None], [b""], [wrong]]).row == 2


def test_null_where_postgresql_promised_none() -> None:
    columns = [Column("v", INT4, not_null=True)]
    failure = same_refusal(columns, [[struct.pack("!i", 7)], [None]])
    assert "NOT NULL" in str(failure)


def test_no_columns() -> None:
    for rows in (1, 33):
        decoder = device_decoder(plan([]), "extended")
        decode_block(decoder, rows_of([[]] * rows))
        assert decoder.rows == rows
        with pytest.raises(DecodeError, match="do not end where the row ends"):
            decode_block(decoder, wire.message(b"D", wire.row([]) + b"\0"))


def test_padding_of_nulls_is_zero() -> None:
    """No byte of what the memory held before is where a value would be."""
    received = rows_of([[None] * len(ALL_SHAPES)] * 40)
    decoder = device_decoder(plan(ALL_SHAPES), "extended")
    block = on_device(received)
    batch = decoder.decode(block, decoder.scan(block, 0, len(received), stream=0), stream=0)
    assert batch.results[:, layout.NULLS].tolist() == [40] * len(ALL_SHAPES)
    for column in batch.to_host(wire.Memory, stream=0).columns:
        values = column.buffers()[1].to_pybytes() if not isinstance(column, pa.ExtensionArray) else b""
        assert not any(values)


def test_a_decoder_goes_on_after_a_refusal() -> None:
    columns = [Column("a", INT4), Column("t", TEXT)]
    decoder = device_decoder(plan(columns), "extended")
    one = struct.pack("!i", 1)
    sound = rows_of([[one, b"text"], [None, None]])
    for wrong in ([one[:3], b""], [one, b"\xff"]):
        with pytest.raises(DecodeError):
            decode_block(decoder, rows_of([wrong]))
        assert table(decode_block(decoder, sound))[0] == [[1, None], ["text", None]]
    assert decoder.rows == 4


@pytest.mark.parametrize("name", golden.NAMES)
def test_recordings_through_small_blocks(name: str) -> None:
    """Rows straddle the blocks, and the block grows."""
    columns, rows = golden.load(name)
    for framing, block_bytes in itertools.product(wire.FRAMINGS, (100, 3000)):
        if SIMULATED and name == "tiles" and block_bytes == 100:
            continue
        recorded, policy = golden.bytes_of(name, framing), golden.policy(name)
        decoded = wire_decode(columns, recorded, framing, policy, block_bytes)
        assert [list(row) for row in zip(*map(oracle.canonical, decoded.columns), strict=True)] == rows


def wire_decode(columns, recorded: bytes, framing: str, policy, block_bytes: int) -> pa.Table:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "make_decoder", make_decoder)
        return wire.decode(columns, recorded, framing, policy=policy, block_bytes=block_bytes, batch_bytes=4096)


def test_the_backend_serves_host_blocks() -> None:
    backend = select_backend("gpu")
    assert isinstance(backend, CudaBackend)
    assert backend.name == "cuda"
    assert "asked for, on" in backend.reason
    assert warm_up(backend) > 0


@pytest.mark.skipif(SIMULATED, reason="the simulator would take hours")
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_large_blocks(geometry) -> None:
    received = rows_of(random_rows(random.Random(1), 4000, 0.2) * 10)
    decoder = device_decoder(plan(ALL_SHAPES), "extended", geometry=geometry, batch_bytes=64 << 20)
    found = decode_block(decoder, received)
    assert len(found) == 1
    assert table(found) == table(on_host(ALL_SHAPES, received))


def test_stale_memory_is_stale() -> None:
    """The tests above are worth less if fresh memory were zero."""
    assert set(download(stale(64).array, stream=0)) == {STALE}
