"""Rows are found by segments side by side, and they are the rows that a walk from the first byte finds."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest

from kernels import host, layout
from kernels.column import Column
from kernels.errors import DecodeError
from kernels.plan import plan
from tests.helpers import wire
from tests.kernels.cuda_twin import (
    GEOMETRIES,
    ROUNDS,
    SIMULATED,
    Geometry,
    broken,
    bytea_rows,
    decode_block,
    device_decoder,
    download,
    every_framing,
    every_geometry,
    on_device,
    some,
)

pytestmark = pytest.mark.gpu
BYTEA, INT4 = 17, 23
MANY = 1 << 20
HEADER = len(wire.COPY_HEADER)


def on_host(received: bytes, framing: str, fields: int, limit: int, header: int) -> tuple:
    """Return (rows, position, reason, failure) as the host twin finds them."""
    block = np.frombuffer(received + bytes(layout.WIRE_PAD_BYTES), np.uint8).copy()
    limit = min(limit, len(received) + 1)
    bounds = np.zeros((2, limit), np.uint32)
    failure = np.zeros(layout.FAILURE_WIDTH, np.int64)
    rows, position, reason = host.scan(
        block, 0, len(received), wire.ROW_KINDS[framing][0], header, fields, *bounds, limit, failure
    )
    place = failure[[layout.CODE, layout.ROW, layout.OFFSET]].tolist()
    return bounds[:, :rows].tolist(), position, reason, place if reason == layout.SCAN_FAILED else None


def by_segments(received: bytes, framing: str, fields: int, limit: int, header: int, geometry) -> tuple:
    """Return the same after as many scans as it takes; every scan must find something."""
    decoder = device_decoder(plan([Column("c", INT4)] * fields), framing, geometry=geometry)
    block = on_device(received)
    found, position, reason, place = np.zeros((2, 0), np.uint32), 0, layout.SCAN_FULL, None
    while reason == layout.SCAN_FULL and found.shape[1] < limit:
        decoder.rows_per_batch = limit - found.shape[1]
        skip = header if position == 0 else 0
        rows, position, reason = decoder._find(block, position, len(received), skip, 0)
        if reason == layout.SCAN_FAILED:
            code, row, _, offset = decoder._failure.tolist()
            place = [code, row + found.shape[1], offset]
        assert rows or reason != layout.SCAN_FULL
        found = np.hstack([found, download(decoder._bounds, stream=0)[:, :rows]])
    return found.tolist(), position, reason, place


def compare(received: bytes, framing: str, fields: int, geometry, limit: int = MANY, header: int = 0) -> None:
    """Scan by both twins."""
    wanted = on_host(received, framing, fields, limit, header)
    assert by_segments(received, framing, fields, limit, header, geometry) == wanted


@pytest.mark.parametrize("seed", range(30 * ROUNDS))
def test_broken_blocks(seed: int) -> None:
    recording, received = broken(seed)
    header = HEADER if recording.framing == "copy" else 0
    geometry = GEOMETRIES[seed % len(GEOMETRIES)]
    compare(received, recording.framing, len(recording.columns), geometry, 3 if seed % 7 == 0 else MANY, header)


@every_framing
@every_geometry
def test_rows_longer_than_segments(framing: str, geometry) -> None:
    for sizes in ((1, 3000, 2, 2500, 3), (2100,), (0, 0, 7, 0, 1100, 1, 0)):
        received = bytea_rows([b"x" * size for size in sizes], framing)
        for end in (len(received), len(received) - 1):
            compare(received[:end], framing, 1, geometry)


@every_framing
@every_geometry
def test_values_full_of_rows(framing: str, geometry) -> None:
    """What lies in a value looks exactly like rows, and may even lead back to the true ones."""
    fake = bytea_rows([b"fake", b""] * 8, framing)
    for shift in (0, 3, 5):
        value = b"x" * shift + fake
        compare(bytea_rows([b"a", value, b"b", value + b"tail", value], framing), framing, 1, geometry)


@every_framing
@every_geometry
def test_sound_blocks_are_proven_at_once(framing: str, geometry) -> None:
    """All rows in one scan, wherever they begin in their segments."""
    source = random.Random(framing)
    values = [source.randbytes(source.choice((0, 3, 9, 40, 300))) for _ in range(20 if SIMULATED else 2000)]
    received = bytea_rows(values, framing) + wire.message(b"C", b"COPY 0\0")
    decoder = device_decoder(plan([Column("b", BYTEA)]), framing, geometry=geometry)
    rows, position, reason = decoder._find(on_device(received), 0, len(received), 0, 0)
    assert (rows, reason) == (len(values), layout.SCAN_MESSAGE)
    assert received[position:].startswith(b"C")


@every_framing
def test_the_host_walks_where_the_proof_is_slow(framing: str) -> None:
    """With the walk and without it the rows are the same; it is not used where the proof goes well."""
    fakes = [bytea_rows([b"fake"] * 30, framing)[index:] for index in range(6)]
    plain = [b"sound"] * 60
    for values, walk, walks in ((fakes, host.scan, 1), (fakes, None, 0), (plain, host.scan, 0)):
        decoder = device_decoder(plan([Column("b", BYTEA)]), framing, walk=walk, geometry=GEOMETRIES[1])
        if framing == "extended":
            received = bytea_rows(values, framing)
        else:
            first = wire.message(b"d", wire.COPY_HEADER + wire.row(values[:1]))
            received = first + bytea_rows(values[1:], framing)
        batches = decode_block(decoder, received)
        assert [value for batch in batches for value in batch.column(0).to_pylist()] == values
        assert decoder.walks == walks
        assert (len(batches) > 1) == (walk is None)  # a batch a scan


@every_framing
@every_geometry
def test_what_stops_a_scan(framing: str, geometry) -> None:
    """Other messages, the trailer, impossible lengths and counts, alone and behind rows."""
    kind = wire.ROW_KINDS[framing]
    rows = bytea_rows([b"one", b"two" * 9], framing)
    tails = (
        wire.message(b"N", b"note\0" * 7) + rows, wire.message(b"C", b"COPY 2\0") + wire.READY,
        rows + wire.message(b"\2", b"no type of PostgreSQL's"), wire.message(kind, wire.COPY_TRAILER) + rows,
        wire.message(kind, struct.pack("!h", 2)), wire.message(kind), wire.message(kind, b"\0"), kind + b"\0\0\0\3", kind + b"\xff\xff\xff\xff", b"", kind,
    )  # fmt: skip
    for tail in tails[GEOMETRIES.index(geometry) % 2 :: 2] if SIMULATED else tails:
        for head in (b"", rows):
            compare(head + tail, framing, 1, geometry)


@every_framing
def test_cut_anywhere(framing: str) -> None:
    rows = bytea_rows([b"one", b"two" * 9, b""], framing)
    for cut in some(range(len(rows)), 3):
        compare(rows[:cut], framing, 1, GEOMETRIES[cut % len(GEOMETRIES)])


@every_geometry
def test_headers(geometry) -> None:
    """The header is glued to the first row, or to the trailer; an extension may be longer than a segment."""
    for extension in (b"", bytes(11), b"d\0\0\0\x0f\0\1" * 20):
        header = wire.COPY_HEADER[:15] + struct.pack("!i", len(extension)) + extension
        row = wire.row([b"value"])
        for received in (
            wire.message(b"d", header + row) + bytea_rows([b"x"] * 9, "copy"),
            wire.message(b"d", header + wire.COPY_TRAILER),
            wire.message(b"d", header),
            wire.message(b"d", header + b"\0\7" + row[2:]),
        ):
            compare(received, "copy", 1, geometry, header=len(header))


@every_framing
@pytest.mark.parametrize("limit", [1, 2, 5, 12])
def test_no_more_rows_than_wanted(framing: str, limit: int) -> None:
    received = bytea_rows([b"x" * size for size in (1, 40, 0, 3, 700, 2, 2, 2, 2, 2, 2, 2)], framing)
    for geometry in GEOMETRIES:
        compare(received, framing, 1, geometry, limit)


def test_a_header_that_has_not_come_yet() -> None:
    """The first message is looked at when it is whole, and once."""
    first = wire.message(b"d", wire.COPY_HEADER + wire.row([b"value"]))
    decoder = device_decoder(plan([Column("b", BYTEA)]), "copy")
    for cut in (0, 4, 5, 20, len(first) - 1):
        found = decoder.scan(on_device(first[:cut]), 0, cut, stream=0)
        assert (found.rows, found.position, found.reason) == (0, 0, layout.SCAN_MORE)
    assert decode_block(decoder, first)[0].to_pylist() == [{"b": b"value"}]
    assert decode_block(decoder, bytea_rows([b"next"], "copy"))[0].to_pylist() == [{"b": b"next"}]
    decoder.expect_header()
    with pytest.raises(DecodeError, match="signature"):
        decode_block(decoder, bytea_rows([b"next"], "copy"))


@pytest.mark.parametrize("wrong", [{"segment_bytes": 0}, {"tile_rows": 40}, {"threads": 1025}, {"sum_threads": 0}])
def test_unsound_geometries_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="no geometry"):
        Geometry(**wrong)


def test_unsound_blocks_are_refused() -> None:
    decoder = device_decoder(plan([Column("b", BYTEA)]), "extended")
    block = on_device(bytea_rows([b"value"] * 4, "extended"))
    for array, begin, end in (
        (block[:-1], 0, 10),
        (block[4:-4], 0, 10),
        (block, 0, block.size),
        (block, 11, 10),
        (block, -1, 10),
    ):
        with pytest.raises(ValueError, match="cannot be scanned"):
            decoder.scan(array, begin, end, stream=0)


@pytest.mark.skipif(SIMULATED, reason="the simulator would take hours")
@every_framing
def test_large_blocks(framing: str) -> None:
    """Many segments, far from equal ones: some rows of a MiB, some values full of rows."""
    source = np.random.default_rng(7)
    fake = bytea_rows([b"fake"] * 500, framing)
    sizes = source.integers(0, 300, 60_000)
    values = [bytes(int(size)) for size in sizes]
    values[30_000] = source.bytes(1 << 20)
    values[40_000:40_003] = [fake, source.bytes(77) + fake, fake + source.bytes(78)]
    received = bytea_rows(values, framing)
    for geometry in GEOMETRIES:
        compare(received, framing, 1, geometry)
