"""Kernels against the oracle over broken replies: ``python -m tests.kernels.fuzz_replies COUNT SEED``.

A program of its own, because an access outside the lent memory is meant to kill it.  The last case is in its
output: ``--case SEED INDEX`` runs one again.  With ``COUNT SEED FIRST cuda`` the CUDA twin decodes.
"""

from __future__ import annotations

import importlib
import logging
import random
import sys
from typing import Any

import structlog

from kernels.errors import ConnectionLostError, DecodeError, OverloadedError, PostgresError, ValueRangeError
from tests.helpers import oracle, wire
from tests.kernels import record_golden as golden
from tests.kernels.guarded import GuardedPool
from tests.kernels.mutate import Recording, mutated, shorten, survey

ROWS_KEPT = 12
EXPECTED = (DecodeError, PostgresError, ConnectionLostError, OverloadedError)
SLAB_BYTES = 1 << 18


class DisagreementError(Exception):
    """Kernel and oracle differ."""


def recordings(rows_kept: int = ROWS_KEPT) -> list[Recording]:
    """Return the golden recordings, short enough that each case is quick."""
    return [
        shorten(
            survey(name, framing, golden.wire_columns(golden.load(name)[0]), golden.bytes_of(name, framing)),
            rows_kept,
        )
        for name in golden.NAMES
        for framing in wire.FRAMINGS
    ]


def case(seed: int, index: int, seeds: list[Recording]) -> tuple[Recording, bytes, dict[str, Any]]:
    """Return the recording, the broken bytes and how they arrive."""
    source = random.Random(f"{seed}:{index}")  # one case can be run alone
    recording = source.choice(seeds)
    broken = mutated(source, recording, seeds)
    block_bytes = source.choice((64, 128, 512, -(-max(1, len(broken)) // 64) * 64))
    return recording, broken, {"block_bytes": block_bytes, "batch_bytes": source.choice((64, 1024, 1 << 16))}


def compare(recording: Recording, broken: bytes, arrival: dict[str, Any], memory: GuardedPool) -> str:
    """Decode by both; return what happened, raise where they differ."""
    policy = oracle.Policy(recording.infinity_is_null)
    try:
        wanted, refused = oracle.decode(recording.columns, broken, recording.framing, policy), None
    except oracle.RefusedError as failure:
        wanted, refused = None, failure
    try:
        table = wire.decode(
            recording.columns,
            broken,
            recording.framing,
            policy=golden.policy(recording.name),
            allocate=memory.allocate,
            max_row_bytes=SLAB_BYTES // 4,
            **arrival,
        )
    except EXPECTED as failure:
        if refused is None and not any(isinstance(value, oracle.Loose) for row in wanted or () for value in row):
            raise DisagreementError(f"refused, though sound: {failure!r}") from failure
        if isinstance(failure, DecodeError):
            check_place(recording, broken, failure)
        return type(failure).__name__
    columns = [oracle.canonical(table.column(index)) for index in range(table.num_columns)]
    found = list(zip(*columns, strict=True))
    if refused is not None:
        raise DisagreementError(f"accepted, though {refused}: {found}")
    if found != wanted:
        raise DisagreementError(f"{found} instead of {wanted}")
    return "accepted"


def check_place(recording: Recording, broken: bytes, failure: DecodeError) -> None:
    """Where the kernels say that something is wrong, the oracle finds something wrong too."""
    names = [column.name for column in recording.columns]
    if failure.offset is not None and not 0 <= failure.offset <= len(broken):
        raise DisagreementError(f"offset out of range: {failure}")
    if failure.column is None:
        return
    if failure.column not in names or failure.row is None or failure.offset is None:
        raise DisagreementError(f"an incomplete place: {failure}")
    rows = list(row_payloads(recording, broken))
    if failure.row >= len(rows):
        raise DisagreementError(f"row out of range: {failure}")
    begin, payload = rows[failure.row]
    if failure.offset < begin:
        raise DisagreementError(f"row {failure.row} begins at {begin} only: {failure}")
    try:
        values = oracle.read_row(recording.columns, payload, oracle.Policy(recording.infinity_is_null))
    except oracle.RefusedError as refused:
        column = names.index(failure.column)
        numeric = recording.columns[column].type_oid == 1700
        if refused.column is None or (refused.column > column and not numeric):
            raise DisagreementError(f"{failure}, but {refused} in column {refused.column}") from failure
        # A field that leaves its row is noticed at the row's end, a numeric's digits are counted before they are read.
        judged_alike = refused.column == column and refused.inside and not numeric
        if judged_alike and isinstance(failure, ValueRangeError) != refused.out_of_range:
            raise DisagreementError(f"{failure!r}, but {refused}") from failure
        return
    if not any(isinstance(value, oracle.Loose) for value in values):
        raise DisagreementError(f"{failure}, but that row is sound: {values}")


def row_payloads(recording: Recording, broken: bytes) -> list[tuple[int, bytes]]:
    """Return (offset, payload) of the rows as far as the frames can be followed."""
    found, at, first = [], 0, recording.framing == "copy"
    while at + 5 <= len(broken):
        size = int.from_bytes(broken[at + 1 : at + 5], "big", signed=True)
        if size < 4 or at + 1 + size > len(broken):
            break
        if broken[at : at + 1] == wire.ROW_KINDS[recording.framing]:
            skip = len(wire.COPY_HEADER) + int.from_bytes(broken[at + 20 : at + 24], "big") if first else 0
            first = False
            payload = broken[at + 5 + skip : at + 1 + size]
            if payload != wire.COPY_TRAILER:
                found.append((at + 5 + skip, payload))
        at += 1 + size
    return found


def main(count: int, seed: int, first: int = 0) -> int:
    """Run the cases; return the number of disagreements."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    seeds, memory = recordings(), GuardedPool(SLAB_BYTES)
    outcomes: dict[str, int] = {}
    failures = 0
    for index in range(first, first + count):
        recording, broken, arrival = case(seed, index, seeds)
        if index % 500 == 0:
            print(f"from case {seed}:{index}", flush=True)
        try:
            outcome = compare(recording, broken, arrival, memory)
        except Exception as failure:
            outcome = "disagreement"
            failures += 1
            print(f"case {seed}:{index} {recording.name}/{recording.framing} {arrival}: {failure!r}")
            print(f"  {broken.hex()}", flush=True)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        if memory.damaged:
            print(f"case {seed}:{index} wrote before a region")
            return failures + 1
    print(outcomes)
    return failures


if __name__ == "__main__":
    if sys.argv[-1] == "cuda":
        wire.make_decoder = importlib.import_module("tests.kernels.cuda_twin").make_decoder
        del sys.argv[-1]
    arguments = [int(argument) for argument in sys.argv[1:] if argument != "--case"]
    if "--case" in sys.argv:
        sys.exit(min(1, main(1, arguments[0], arguments[1])))
    sys.exit(min(1, main(*arguments)))
