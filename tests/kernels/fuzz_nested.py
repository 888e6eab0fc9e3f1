"""Broken nested values: ``python -m tests.kernels.fuzz_nested COUNT SEED [cuda]``.

One compiled loop breaks a block, surveys and decodes it.  The block ends WIRE_PAD_BYTES before an inaccessible page
and the scratch memory and the arena end at one, so a read or a write outside ends the process.  What is accepted is
looked at: counts and offsets must be possible.  With ``cuda`` the same is done by the other twin's device functions,
compiled for the CPU, and both must have found the same.
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
from kernels.column import Column
from kernels.plan import LISTS, Plan, TypePolicy, plan
from tests.helpers import wire
from tests.kernels.fuzz_compiled import HUGE, LENGTHS, draw, put
from tests.kernels.guarded import MARK, MARK_BYTES, STALE, Slab

PAD = layout.WIRE_PAD_BYTES
WORDS = np.array([*LENGTHS, *HUGE, 6, 1007, 25, 23], np.int64)
ROUND = 100_000
FINE, IMPOSSIBLE, PLACE_WRONG, WROTE_OUTSIDE, TWINS_DIFFER = range(5)
ACCEPTED = -1
PROBLEMS = (
    "fine", "impossible offsets were accepted", "the failure's place is wrong", "a write before the arena",
    "the twins differ",
)  # fmt: skip
INT4, TEXT, BOOL, INTERVAL, NUMERIC, UUID, BPCHAR = 23, 25, 16, 1186, 1700, 2950, 1042
NUMERIC_9_2 = (9 << 16) + 2 + 4


def array(part: Column, oid: int = 1) -> Column:
    """Describe an array."""
    return Column("", oid, kind="b", category="A", send="array_send", parts=(part,))


def made(kind: str, *parts: Column, oid: int = 2) -> Column:
    """Describe a composite, range or multirange."""
    return Column("p", oid, kind=kind, parts=parts)


def word(*numbers: int) -> bytes:
    """Write 32-bit numbers."""
    return b"".join((number & 0xFFFFFFFF).to_bytes(4, "big") for number in numbers)


def field(value: bytes | None) -> bytes:
    """Write a part with its length."""
    return word(-1) if value is None else word(len(value)) + value


def items(oid: int, *values: bytes | None) -> bytes:
    """Write an array."""
    return word(1, int(None in values), oid, len(values), 1) + b"".join(map(field, values))


def composite(*parts: tuple[int, bytes | None]) -> bytes:
    """Write a composite."""
    return word(len(parts)) + b"".join(word(oid) + field(value) for oid, value in parts)


LEAVES = made(
    "c", Column("i", INT4), Column("t", TEXT), Column("b", BOOL), Column("n", NUMERIC, NUMERIC_9_2),
    Column("u", UUID), Column("g", INTERVAL), Column("v", 9, 3, type_name="vector", send="vector_send"),
)  # fmt: skip
LEAF_BYTES = composite(
    (INT4, word(7)), (TEXT, "é😀".encode()), (BOOL, b"\1"), (NUMERIC, bytes.fromhex("0001000000000002000c")),
    (UUID, bytes(16)), (INTERVAL, bytes(16)), (9, bytes.fromhex("00030000") + word(1, 2, 3)),
)  # fmt: skip
SPAN = made("r", Column("", INT4), oid=3)
SPANS = b"\x02" + field(word(1)) + field(word(5))
DEEP = made("c", array(LEAVES), array(array(Column("", INT4), 5), 6), oid=4)
DEEP_BYTES = composite(
    (1, items(2, LEAF_BYTES, None, LEAF_BYTES)), (6, items(5, items(INT4, word(1), None), None, word(0, 0, INT4)))
)
CASES: tuple[tuple[tuple[Column, ...], tuple[bytes, ...]], ...] = (
    (
        (array(Column("", INT4)), array(Column("", TEXT))),
        (items(INT4, word(1), None, word(3)), items(TEXT, b"a", b"")),
    ),
    ((LEAVES,), (LEAF_BYTES,)),
    ((SPAN, made("m", SPAN)), (SPANS, word(2) + field(SPANS) + field(b"\x01"))),
    ((Column("h", 7, send="hstore_send"),), (word(2) + field(b"a") + field(b"1") + field(b"b") + field(None),)),
    ((Column("i", INT4), DEEP, Column("t", TEXT)), (word(1), DEEP_BYTES, b"text")),
    ((array(DEEP, 8),), (items(4, DEEP_BYTES, None, composite((1, None), (6, None))),)),
    (
        (
            array(Column("", INT4)),
            array(Column("", UUID)),
            Column("v", 9, 2, type_name="vector", send="vector_send"),
        ),
        (items(INT4, word(1), word(2), word(3)), items(UUID, bytes(16), bytes(16)), b"\0\2\0\0" + word(4, 5)),
    ),
)
"""Columns, and a row of them."""
ND = TypePolicy(arrays="nd", bpchar="trim")
GRID = (array(Column("", INT4)), array(LEAVES), array(Column("", BPCHAR)), Column("c", BPCHAR))
GRID_BYTES = (
    word(2, 1, INT4, 2, -1, 2, 5) + field(word(1)) + field(None) + field(word(3)) + field(word(4)),
    word(3, 0, 2, 1, 1, 1, 0, 1, 2**31 - 1) + field(LEAF_BYTES),
    word(1, 0, BPCHAR, 3, 7) + field(b"a ") + field("é".encode()) + field(b"   "),
    b" x      ",
)
PLANS: tuple[tuple[Plan, tuple[bytes, ...]], ...] = (
    *((plan(columns), values) for columns, values in CASES),
    *((plan(columns, ND), values) for columns, values in (CASES[5], (GRID, GRID_BYTES))),
)
"""How the cases are read, those of arrays by either policy, and a row."""


@numba.njit
def break_block(state, block, size, first):
    """Damage a few places; most are whole words set to what a length or a count might be."""
    for _ in range(1 + draw(state, 3)):
        at = first + draw(state, size - first - 4)
        choice = draw(state, 4)
        if choice == 0:
            block[at] ^= np.uint8(1 << draw(state, 8))
        elif choice == 1:
            old = np.int64(0)
            for index in range(4):
                old = (old << 8) | np.int64(block[at + index])
            put(block, at, old + draw(state, 9) - 4, 4)
        else:
            put(block, at, WORDS[draw(state, WORDS.size)], 4)


@numba.njit
def sizes_of(nodes, counts, table):
    """Place the buffers as `Plan.arrange` does; return where data begins."""
    at = np.int64(0)
    for node in range(nodes.shape[0]):
        shape, count = nodes[node, layout.SHAPE], counts[node]
        table[node, layout.VALIDITY_AT] = at
        at += ((count + 7) // 8 + 63) // 64 * 64
        table[node, layout.VALUES_AT] = at
        size = nodes[node, layout.WIDTH] * count
        if shape == layout.BOOL:
            size = (count + 7) // 8
        elif shape == layout.VARLEN or shape in LISTS:
            size = 4 * (count + 1)
        at += (size + 63) // 64 * 64
    return at


def make_check(twin: Any) -> Any:
    """Compile the check of one block by one twin."""

    @numba.njit
    def check(block, end, rows, fields, nodes, table, arena, scratch, varlen):
        """Survey and decode; return a problem, FINE for one that was refused, or ACCEPTED."""
        starts, ends, places, offsets, counts, cursors, tile, sources, results, failure = scratch
        failed = twin.survey(block, starts, ends, rows, fields, nodes, places, offsets, counts, failure)
        if failed == 0:
            needed = sizes_of(nodes, counts, table) + end + 64 * varlen + 128
            base = arena[0].size - (needed + 63) // 64 * 64
            for node in range(nodes.shape[0]):
                table[node, layout.VALIDITY_AT] += base
                table[node, layout.VALUES_AT] += base
            arena[0][base - MARK_BYTES : base] = MARK
            arena[0][base:] = STALE
            data_at = base + sizes_of(nodes, counts, nodes)
            failed = twin.decode(
                block, end, starts, ends, rows, table[:fields], arena, data_at, cursors, tile, sources,
                results[:fields], failure,
            )  # fmt: skip
            if failed == 0:
                for index in range(fields):
                    if table[index, layout.PLACES] < 0:
                        data_at += (results[index, layout.DATA_BYTES] + 63) // 64 * 64
                failed = twin.decode_parts(
                    block, end, table, places, offsets, counts, arena, data_at, cursors, tile, results, failure
                )
            for at in range(base - MARK_BYTES, base):
                if arena[0][at] != MARK:
                    return WROTE_OUTSIDE
        if failed != 0:
            node = failure[layout.COLUMN]
            if not (0 <= node < nodes.shape[0] and 0 <= failure[layout.ROW] < counts[node]):
                return PLACE_WRONG
            return FINE if 0 <= failure[layout.OFFSET] <= end else PLACE_WRONG
        return ACCEPTED if are_possible(table, arena, counts) else IMPOSSIBLE

    return check


@numba.njit
def is_list(shape):
    return shape in LISTS


@numba.njit
def are_possible(table, arena, counts):
    """Tell whether offsets only grow, and end where the parts do."""
    for node in range(table.shape[0]):
        if is_list(table[node, layout.SHAPE]):
            at = table[node, layout.VALUES_AT] // 4
            before = np.int64(0)
            for index in range(counts[node] + 1):
                if arena[2][at + index] < before:
                    return False
                before = arena[2][at + index]
            if before != counts[table[node, layout.CHILD]]:
                return False
    return True


@numba.njit
def are_same(problem, nodes, mine, theirs):
    """Compare two outcomes of a block: the failure, or the buffers up to their ends.

    Of several failures a device names text last, for it looks at text only once all fields are sound.
    """
    table, arena, counts, results, failure = mine
    other_table, other_arena, other_counts, other_results, other_failure = theirs
    if problem != ACCEPTED:
        of_text = failure[layout.CODE] == layout.NOT_UTF8 or other_failure[layout.CODE] == layout.NOT_UTF8
        return of_text or (failure == other_failure).all()
    for node in range(nodes.shape[0]):
        row, other, count = table[node], other_table[node], counts[node]
        if count != other_counts[node] or (results[node] != other_results[node]).any():
            return False
        for index in range(count):
            valid = (arena[0][row[layout.VALIDITY_AT] + index // 8] >> (index % 8)) & 1
            if valid != (other_arena[0][other[layout.VALIDITY_AT] + index // 8] >> (index % 8)) & 1:
                return False
            first, last = np.int64(0), np.int64(0)
            shape = row[layout.SHAPE]
            if shape == layout.BOOL:
                at, other_at = row[layout.VALUES_AT] + index // 8, other[layout.VALUES_AT] + index // 8
                if ((arena[0][at] ^ other_arena[0][other_at]) >> (index % 8)) & valid:
                    return False
            elif shape == layout.VARLEN or is_list(shape):
                first, last = 4 * index, 4 * index + 8
            elif valid or shape == layout.VECTOR:
                first, last = row[layout.WIDTH] * index, row[layout.WIDTH] * (index + 1)
            for at in range(first, last):
                if arena[0][row[layout.VALUES_AT] + at] != other_arena[0][other[layout.VALUES_AT] + at]:
                    return False
        begin, other_begin = results[node, layout.DATA_AT], other_results[node, layout.DATA_AT]
        for at in range(results[node, layout.DATA_BYTES]):
            if arena[0][begin + at] != other_arena[0][other_begin + at]:
                return False
    return True


def make_campaign(check: Any, check_other: Any) -> Any:
    """Compile the loop; the second check is of the other twin, or None."""
    compared = check_other is not None
    other = check_other or check

    @numba.njit
    def campaign(count, state, sound, block, rows, fields, nodes, mine, theirs, varlen):
        """Break and check; return (problem, accepted)."""
        accepted = 0
        for _ in range(count):
            block[: sound.size] = sound
            for index in range(PAD):
                block[sound.size + index] = np.uint8(draw(state, 256))
            if draw(state, 16) != 0:
                break_block(state, block, sound.size, 7)
            table, arena, scratch = mine
            problem = check(block, sound.size, rows, fields, nodes, table, arena, scratch, varlen)
            if problem > FINE:
                return problem, accepted
            if compared:
                other_table, other_arena, other_scratch = theirs
                found = other(
                    block, sound.size, rows, fields, nodes, other_table, other_arena, other_scratch, varlen
                )
                if found > FINE:
                    return found, accepted
                ours = (table, arena, scratch[4], scratch[8], scratch[9])
                yours = (other_table, other_arena, other_scratch[4], other_scratch[8], other_scratch[9])
                if found != problem or not are_same(problem, nodes, ours, yours):
                    return TWINS_DIFFER, accepted
            accepted += problem < 0
        return FINE, accepted

    return campaign


def guarded(slab_bytes: int, kind: Any, shape: tuple[int, ...]) -> Any:
    """Return an array that ends where the accessible memory ends."""
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    return Slab(slab_bytes).tail(size).view(kind).reshape(shape)


@dataclass(frozen=True)
class Block:
    """Rows of one case, and the offsets of their fields and ends."""

    sound: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


def block_of(values: tuple[bytes, ...]) -> Block:
    """Make four rows, half of them NULL."""
    rows = [wire.message(b"D", wire.row(list(values))), wire.message(b"D", wire.row([None] * len(values)))] * 2
    edges = np.cumsum([0, *map(len, rows)]).astype(np.uint32)
    return Block(np.frombuffer(b"".join(rows), np.uint8), (edges[:-1] + 5).astype(np.uint32), edges[1:].copy())


def memory_for(planned: Any, block: Block) -> tuple[Any, ...]:
    """Allocate what one twin works in: (table, arena, scratch)."""
    rows = block.starts.size
    shape = (planned.nested_nodes, max(rows, block.sound.size // 4) + 1)
    scratch = (
        block.starts, block.ends, guarded(1 << 20, np.uint32, shape), guarded(1 << 20, np.uint32, shape),
        np.zeros(len(planned.nodes), np.int64), np.zeros(layout.TILE_ROWS, np.uint32),
        np.zeros(layout.TILE_WIDTH, np.int64), np.zeros((max(1, planned.varlen_columns), rows), np.uint32),
        np.zeros((len(planned.nodes), layout.RESULT_WIDTH), np.int64), np.zeros(layout.FAILURE_WIDTH, np.int64),
    )  # fmt: skip
    memory = Slab(1 << 20).bytes
    arena = (memory, memory.view(np.int16), memory.view(np.int32), memory.view(np.int64))
    return planned.descriptors.copy(), arena, scratch


def main(count: int, seed: int, twin: Any = None) -> int:
    """Run `count` blocks of each case; return 1 at the first problem."""
    started = time.monotonic()
    campaign = make_campaign(make_check(host), make_check(twin) if twin else None)
    for number, (planned, values) in enumerate(PLANS):
        made_of = block_of(values)
        assert planned.nested_nodes and not any(planned.casts)
        mine, theirs = memory_for(planned, made_of), memory_for(planned, made_of)
        size = made_of.sound.size + PAD
        size += -size % 8 if twin else 0  # a device sees whole words
        block = Slab(1 << 16).tail(size)
        state = np.array([(seed * 16 + number + 1) * 0x9E3779B97F4A7C15 % 2**64 | 1], np.uint64)
        done = accepted = 0
        while done < count:
            before, share = int(state[0]), min(ROUND, count - done)
            problem, good = campaign(
                share, state, made_of.sound, block, made_of.starts.size, len(planned.names), planned.descriptors,
                mine, theirs, planned.varlen_nodes,
            )  # fmt: skip
            done, accepted = done + share, accepted + good
            if problem != FINE:
                print(f"{PROBLEMS[problem]}: case {number}, state {before:#x}\n  {block.tobytes().hex()}")
                return 1
        print(f"case {number}: {done} blocks, {accepted} accepted, {time.monotonic() - started:.0f} s", flush=True)
        assert 0 < accepted < done
    return 0


if __name__ == "__main__":
    other = importlib.import_module("tests.kernels.compiled_nested") if sys.argv[3:] == ["cuda"] else None
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), other))
