"""Kernels against the compiled oracle over many broken blocks: ``python -m tests.kernels.fuzz_compiled COUNT SEED``.

A third argument ``cuda`` takes the CUDA twin's functions, compiled for the CPU.

Breaking, scanning, decoding and comparing all run in one compiled loop.  The block ends 64 bytes before an
inaccessible page, the arena at one, and what lies before the arena is marked.
"""

from __future__ import annotations

import importlib
import sys
import time
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from kernels import host, layout
from kernels.plan import plan
from tests.kernels import compiled_oracle as oracle
from tests.kernels import record_golden as golden
from tests.kernels.fuzz_replies import recordings
from tests.kernels.guarded import MARK, MARK_BYTES, STALE, Slab
from tests.kernels.mutate import BYTES, HUGE, LENGTHS, SHORTS, SIGNS, Recording

LARGEST_STEP = 16
"""A field of fixed width may be stepped over before the block's end is looked at: the next one then begins there."""
PAD = layout.WIRE_PAD_BYTES
LIMIT = 1024
CAPACITY = 1 << 16
ROUND = 250_000
TILED_ROWS = 300
TILED_SHARE = 200
"""Every so manieth case is one of several tiles."""

FINE, SCAN_DIFFERS, ACCEPTED_BAD, REFUSED_GOOD, VALUE_DIFFERS, PLACE_WRONG, NULLS_DIFFER, WROTE_OUTSIDE = range(8)
PROBLEMS = (
    "fine", "the scans differ", "a bad block was accepted", "a good block was refused", "a value differs",
    "the failure's place is wrong", "the NULL counts differ", "a write before the arena",
)  # fmt: skip

twin: Any = host
"""Scan and decode under test; chosen before anything is compiled."""

WORDS = np.array([*LENGTHS, *HUGE], np.int64)
HALVES = np.array([*SHORTS, *SIGNS], np.int64)
OCTETS = np.array(BYTES, np.uint8)


@numba.njit
def draw(state, limit):
    """Return a random number below `limit` (xorshift64*)."""
    word = state[0]
    word ^= word >> np.uint64(12)
    word ^= word << np.uint64(25)
    word ^= word >> np.uint64(27)
    state[0] = word
    return np.int64(((word * np.uint64(2685821657736338717)) >> np.uint64(33)) % np.uint64(limit))


@numba.njit
def put(block, at, number, size):
    """Write a big-endian number."""
    for index in range(size):
        block[at + index] = (number >> (8 * (size - 1 - index))) & 0xFF


@numba.njit
def break_in_place(state, block, words, halves, size):
    """Do one of the mutations that move nothing."""
    choice = draw(state, 6)
    if choice == 0:
        for _ in range(1 + draw(state, 4)):
            block[draw(state, size)] ^= np.uint8(1 << draw(state, 8))
    elif choice == 1:
        block[draw(state, size)] = OCTETS[draw(state, OCTETS.size)]
    elif choice <= 3:
        at = words[draw(state, words.size)]
        near = oracle.big(block, at, 4) + draw(state, 9) - 4
        put(block, at, near if draw(state, 3) == 0 else WORDS[draw(state, WORDS.size)], 4)
    elif choice == 4 and halves.size > 0:
        put(block, halves[draw(state, halves.size)], HALVES[draw(state, HALVES.size)], 2)
    else:
        amount = 1 + draw(state, 8)
        first, second = words[draw(state, words.size)], words[draw(state, words.size)]
        put(block, first, oracle.big(block, first, 4) + amount, 4)
        put(block, second, oracle.big(block, second, 4) - amount, 4)


@numba.njit
def break_by_moving(state, block, size, donor):
    """Cut, repeat or splice; return the new size."""
    choice, at = draw(state, 4), draw(state, size)
    if choice == 0:
        return at
    count = 1 + draw(state, 60)
    if choice == 1:
        count = min(count, size - at)
        for index in range(at, size - count):
            block[index] = block[index + count]
        return size - count
    begin = draw(state, donor.size)
    count = min(count, donor.size - begin)
    if choice == 2 and size + count <= block.size:
        for index in range(size - 1, at - 1, -1):
            block[index + count] = block[index]
        size += count
    count = min(count, size - at)
    block[at : at + count] = donor[begin : begin + count]
    return size


@numba.njit
def cut_row(state, block, starts, size):
    """End the block inside a row whose message says that it ends there; return the new size.

    What lies behind the block may then be the rest of the row, with lengths as they should be.
    """
    start = starts[draw(state, starts.size)]
    stop = min(size, start + 1 + max(4, oracle.big(block, start + 1, 4)))
    end = start + 5 + draw(state, max(1, stop - start - 4))
    put(block, start + 1, end - start - 1, 4)
    return min(size, end)


@numba.njit
def arrange(columns, rows, base):
    """Place the buffers as `Plan.arrange` does, from byte `base` on; return (table, where data begins)."""
    table = columns.copy()
    at = base
    for row in table:
        row[layout.VALIDITY_AT] = at
        at += (((rows + 7) // 8 + 63) // 64) * 64
        row[layout.VALUES_AT] = at
        if row[layout.SHAPE] == layout.BOOL:
            size = (rows + 7) // 8
        elif row[layout.SHAPE] == layout.VARLEN:
            size = 4 * (rows + 1)
        else:
            size = row[layout.WIDTH] * rows
        at += ((size + 63) // 64) * 64
    return table, at


@numba.njit
def check(wire, begin, end, kind, arena, kernel, columns, scratch):
    """Scan and decode one block by both; return (problem, rows)."""
    starts, ends, cursors, tile, sources, results, failure, ours, our_ends = scratch
    fields, varlen = columns.shape[0], sources.shape[0]
    rows, position, reason = twin.scan(wire, begin, end, kind, 0, fields, starts, ends, LIMIT, failure)
    wanted = oracle.walk(wire, begin, end, kind, fields, LIMIT, ours, our_ends)
    if wanted[0] != rows or wanted[1] != position or wanted[2] != reason:
        return SCAN_DIFFERS, rows
    if reason == oracle.FAILED or rows == 0:
        return FINE, 0
    _, data_at = arrange(kernel, rows, 0)
    size = data_at + (position - np.int64(starts[0])) + 64 * varlen + 128
    base = arena[0].size - (size + 63) // 64 * 64
    table, data_at = arrange(kernel, rows, base)
    arena[0][base - MARK_BYTES : base] = MARK
    arena[0][base:] = STALE
    failed = twin.decode(
        wire, position, starts, ends, rows, table, arena, data_at, cursors, tile, sources, results, failure
    )
    for at in range(base - MARK_BYTES, base):
        if arena[0][at] != MARK:
            return WROTE_OUTSIDE, rows
    if failed:
        row, column, offset = failure[layout.ROW], failure[layout.COLUMN], failure[layout.OFFSET]
        if not (0 <= row < rows and 0 <= column < fields and ours[row] <= offset <= end + LARGEST_STEP):
            return PLACE_WRONG, rows
        verdict, where = oracle.row_fault(wire, ours[row], our_ends[row], columns)
        if verdict == oracle.GOOD:
            return REFUSED_GOOD, rows
        return (PLACE_WRONG if where > column else FINE), rows
    for row in range(rows):
        verdict, _ = oracle.row_fault(wire, ours[row], our_ends[row], columns)
        if verdict not in (oracle.GOOD, oracle.LOOSE):
            return ACCEPTED_BAD, rows
        if oracle.row_equals(wire, ours[row], columns, row, arena[0], table, results) >= 0:
            return VALUE_DIFFERS, rows
    for index in range(fields):
        nulls = 0
        for row in range(rows):
            nulls += 1 - ((arena[0][table[index, layout.VALIDITY_AT] + row // 8] >> (row % 8)) & 1)
        if nulls != results[index, layout.NULLS]:
            return NULLS_DIFFER, rows
    return FINE, -rows


@numba.njit
def campaign(
    count, state, sound, starts, words, halves, donor, kind, wire, arena, kernel, columns, scratch, block
):
    """Break and check `count` times; return (problem, accepted blocks, size of the block in `block`)."""
    accepted = 0
    for _ in range(count):
        size = sound.size
        block[:size] = sound
        for _mutation in range(draw(state, 4)):
            break_in_place(state, block, words, halves, size)
        way = draw(state, 6)
        if way < 2:
            size = break_by_moving(state, block, size, donor)
        elif way == 2:
            size = cut_row(state, block, starts, size)
        begin = wire.size - PAD - size
        wire[begin : begin + size] = block[:size]
        # What lies behind the block must not matter: often it is what a receiver would find there.
        mode = draw(state, 3)
        for index in range(PAD):
            at = size + index
            plausible = sound[at] if at < sound.size else np.uint8(0)
            wire[begin + at] = plausible if mode == 0 else np.uint8(0) if mode == 1 else np.uint8(draw(state, 256))
        problem, rows = check(wire, begin, begin + size, kind, arena, kernel, columns, scratch)
        if problem != FINE:
            return problem, accepted, size
        accepted += rows < 0
    return FINE, accepted, 0


@dataclass(frozen=True)
class Target:
    """One recording, ready for the compiled loop."""

    recording: Recording
    sound: np.ndarray
    starts: np.ndarray
    words: np.ndarray
    halves: np.ndarray
    kernel: np.ndarray
    columns: np.ndarray


def target(recording: Recording) -> Target:
    """Take a recording's rows (a COPY's without its header, which the kernels never see)."""
    kind = ord("d" if recording.framing == "copy" else "D")
    first = next(at for at in recording.starts if recording.bytes[at] == kind)
    sound = bytearray(recording.bytes[first:])
    moved = first
    if recording.framing == "copy":
        size = int.from_bytes(sound[1:5], "big") - 19
        sound[:24] = b"d" + size.to_bytes(4, "big")
        moved += 19
    starts = [max(0, at - moved) for at in recording.starts if at >= first]
    words = [max(1, at - moved) for at in recording.words if at - moved >= 0 or at == first + 1]
    halves = [at - moved for at in recording.halves]
    planned = plan(recording.columns, golden.policy(recording.name))
    return Target(
        recording,
        np.frombuffer(bytes(sound), np.uint8),
        np.array(starts, np.int64),
        np.array(words, np.int64),
        np.array(halves, np.int64),
        planned.descriptors,
        oracle.table(recording.columns, infinity_is_null=recording.infinity_is_null),
    )


def targets() -> tuple[list[Target], list[Target]]:
    """Return (small, of several tiles)."""
    found = recordings()
    small = [target(recording) for recording in found if recording.name != "empty"]
    tiled = [target(recording) for recording in recordings(TILED_ROWS) if recording.name == "tiles"]
    return small, tiled


def scratch_for(of: Target) -> tuple[np.ndarray, ...]:
    """Allocate what scan and decode work in, and the oracle's row bounds."""
    varlen = int(np.count_nonzero(of.kernel[:, layout.SOURCE] >= 0))
    return (
        np.zeros(LIMIT, np.uint32), np.zeros(LIMIT, np.uint32), np.zeros(layout.TILE_ROWS, np.uint32),
        np.zeros(layout.TILE_WIDTH, np.int64), np.zeros((max(1, varlen), LIMIT), np.uint32),
        np.zeros((len(of.kernel), layout.RESULT_WIDTH), np.int64), np.zeros(layout.FAILURE_WIDTH, np.int64),
        np.zeros(LIMIT, np.int64), np.zeros(LIMIT, np.int64),
    )  # fmt: skip


def main(count: int, seed: int) -> int:
    """Run `count` cases spread over all recordings; return 1 at the first problem."""
    small, tiled = targets()
    wire, memory = Slab(CAPACITY).bytes, Slab(8 * CAPACITY).bytes
    arena = (memory, memory.view(np.int16), memory.view(np.int32), memory.view(np.int64))
    block = np.zeros(CAPACITY // 2, np.uint8)
    state = np.array([seed * 0x9E3779B97F4A7C15 % 2**64 | 1], np.uint64)
    done = accepted = 0
    started = time.monotonic()
    while done < count:
        for index, of in enumerate((*small, *tiled)):
            share = max(1, min(ROUND, count) // len(small))
            share = share if index < len(small) else max(1, share // TILED_SHARE)
            before = int(state[0])
            donor = small[(done + index) % len(small)].sound
            problem, good, size = campaign(
                share, state, of.sound, of.starts, of.words, of.halves, donor,
                ord("d" if of.recording.framing == "copy" else "D"),
                wire, arena, of.kernel, of.columns, scratch_for(of), block,
            )  # fmt: skip
            done, accepted = done + share, accepted + good
            if problem != FINE:
                print(f"{PROBLEMS[problem]}: {of.recording.name}/{of.recording.framing}, state {before:#x}")
                print(f"  {block[:size].tobytes().hex()}")
                return 1
        print(f"{done} blocks, {accepted} accepted, {time.monotonic() - started:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    if sys.argv[3:] == ["cuda"]:
        twin = importlib.import_module("tests.kernels.compiled_cuda")
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
