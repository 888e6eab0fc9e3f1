"""Break recorded replies in the ways that matter: lengths, counts, headers, cuts, foreign messages."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass

from kernels.column import Column
from tests.helpers import wire
from tests.kernels import record_golden as golden

LENGTHS = (-(2**31), -(2**31) + 1, -5, -2, -1, 0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 64, 255, 65535, 65536)
HUGE = (2**24, 2**30, 2**31 - 5, 2**31 - 4, 2**31 - 1)
SHORTS = (-32768, -2, -1, 0, 1, 2, 3, 9999, 10000, 32767)
BYTES = (0, 1, 2, 3, 0x3F, 0x40, 0x7F, 0x80, 0xBF, 0xC0, 0xC2, 0xE0, 0xED, 0xF4, 0xF8, 0xFF)
ENCODING = b"client_encoding\0LATIN1\0"
SIGNS = (0, 0x4000, 0x8000, 0xC000, 0xD000, 0xF000, 0x0001, 0xFFFF)


@dataclass(frozen=True)
class Recording:
    """A sound reply and the places in it that are worth breaking.

    Parameters
    ----------
    name, framing : str
    columns : tuple of Column
        As they travel.
    bytes : bytes
    starts : tuple of int
        Offsets of the messages.
    words, halves : tuple of int
        Offsets of 32-bit lengths, and of 16-bit counts and numeric headers.
    """

    name: str
    framing: str
    columns: tuple[Column, ...]
    bytes: bytes
    starts: tuple[int, ...]
    words: tuple[int, ...]
    halves: tuple[int, ...]

    @property
    def infinity_is_null(self) -> bool:
        """Whether it is read with option infinity=null."""
        return self.name == golden.INFINITE


def survey(name: str, framing: str, columns: tuple[Column, ...], recorded: bytes) -> Recording:
    """Find the places."""
    starts, words, halves = [], [], []
    first = True
    for at, kind, payload in wire.frames(recorded):
        starts.append(at)
        words.append(at + 1)
        if kind != wire.ROW_KINDS[framing] or payload == wire.COPY_TRAILER:
            continue
        inside = at + 5 + (len(wire.COPY_HEADER) if framing == "copy" and first else 0)
        first = False
        halves.append(inside)
        inside += 2
        for column in columns:
            if inside + 4 > at + 5 + len(payload):
                break
            words.append(inside)
            size = struct.unpack_from("!i", recorded, inside)[0]
            if column.type_oid == 1700 and size > 0:
                halves += [inside + 4, inside + 6, inside + 8]
            inside += 4 + max(size, 0)
    return Recording(name, framing, columns, recorded, tuple(starts), tuple(words), tuple(halves))


def shorten(recording: Recording, rows: int) -> Recording:
    """Keep the first rows only, and the end of the reply."""
    kind = wire.ROW_KINDS[recording.framing]
    kept, count = b"", 0
    for at, letter, payload in wire.frames(recording.bytes):
        is_row = letter == kind and payload != wire.COPY_TRAILER
        count += is_row
        if letter == b"C":
            claimed = b"COPY" if recording.framing == "copy" else b"SELECT"
            kept += wire.message(b"C", claimed + b" %d\0" % min(count, rows))
        elif not is_row or count <= rows:
            kept += recording.bytes[at : at + 5 + len(payload)]
    return survey(recording.name, recording.framing, recording.columns, kept)


def mutated(source: random.Random, recording: Recording, donors: list[Recording]) -> bytes:
    """Return the reply with one to three things wrong (or, by luck, none)."""
    broken = bytearray(recording.bytes)
    # Places are those of the original: what moves bytes comes last.
    for _ in range(source.choice((0, 1, 1, 1, 2))):
        source.choice(IN_PLACE)(source, recording, broken)
    if source.random() < 0.4:
        source.choice(MOVING)(source, recording, broken, donors)
    return bytes(broken)


def _flip_bits(source: random.Random, recording: Recording, broken: bytearray) -> None:
    for _ in range(source.randint(1, 4)):
        broken[source.randrange(len(broken))] ^= 1 << source.randrange(8)


def _set_byte(source: random.Random, recording: Recording, broken: bytearray) -> None:
    broken[source.randrange(len(broken))] = source.choice(BYTES)


def _set_length(source: random.Random, recording: Recording, broken: bytearray) -> None:
    at = source.choice(recording.words)
    old = struct.unpack_from("!i", broken, at)[0]
    near = (old - 2, old - 1, old + 1, old + 2, old + 4)
    new = source.choice(source.choice((near, LENGTHS, HUGE)))
    struct.pack_into("!I", broken, at, new & 0xFFFFFFFF)


def _set_half(source: random.Random, recording: Recording, broken: bytearray) -> None:
    if recording.halves:
        new = source.choice(source.choice((SHORTS, SIGNS)))
        struct.pack_into("!H", broken, source.choice(recording.halves), new & 0xFFFF)


def _trade_lengths(source: random.Random, recording: Recording, broken: bytearray) -> None:
    """Move bytes from one field to another: the row's length stays right."""
    first, second = source.choice(recording.words), source.choice(recording.words)
    amount = source.randint(1, 8)
    for at, delta in ((first, amount), (second, -amount)):
        traded = struct.unpack_from("!i", broken, at)[0] + delta
        struct.pack_into("!I", broken, at, traded & 0xFFFFFFFF)


IN_PLACE = (_flip_bits, _set_byte, _set_length, _set_length, _set_half, _trade_lengths)


def _cut_tail(source: random.Random, recording: Recording, broken: bytearray, donors: list[Recording]) -> None:
    del broken[source.randrange(len(broken)) :]


def _cut_middle(source: random.Random, recording: Recording, broken: bytearray, donors: list[Recording]) -> None:
    at = source.randrange(len(broken))
    del broken[at : at + source.choice((1, 2, 4, 8, 30))]


def _drop_message(source: random.Random, recording: Recording, broken: bytearray, donors: list[Recording]) -> None:
    index = source.randrange(len(recording.starts))
    ends = (*recording.starts[1:], len(recording.bytes))
    del broken[recording.starts[index] : ends[index]]


def _repeat_message(
    source: random.Random, recording: Recording, broken: bytearray, donors: list[Recording]
) -> None:
    index = source.randrange(len(recording.starts))
    ends = (*recording.starts[1:], len(recording.bytes))
    copied = bytes(broken[recording.starts[index] : ends[index]])
    at = source.choice(recording.starts)
    broken[at:at] = copied


def _splice(source: random.Random, recording: Recording, broken: bytearray, donors: list[Recording]) -> None:
    donor = source.choice(donors).bytes
    begin = source.randrange(len(donor))
    at = source.randrange(len(broken))
    piece = donor[begin : begin + source.randint(1, 80)]
    broken[at : at + source.choice((0, len(piece)))] = piece


def _insert_message(
    source: random.Random, recording: Recording, broken: bytearray, donors: list[Recording]
) -> None:
    kind = source.choice(
        (b"N", b"S", b"A", b"N", b"S", b"E", b"C", b"Z", b"c", b"d", b"D", b"H", b"T", b"?", b"\xff")
    )
    payload = source.choice(
        (b"", b"\0", b"SERROR\0C22012\0Mno\0\0", b"a\0b\0", b"\xff\xff", b"COPY 3\0", b"\xe9\0\0")
    )
    at = source.choice(recording.starts)
    broken[at:at] = wire.message(kind, payload)


MOVING = (_cut_tail, _cut_middle, _drop_message, _repeat_message, _splice, _insert_message, _insert_message)
