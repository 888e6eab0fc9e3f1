"""Recorded replies decode to recorded values, without a server; ``record_golden`` writes the recordings anew."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pyarrow as pa
import pytest

from kernels.plan import plan
from kernels.registry import ROWS
from tests.helpers import oracle, wire
from tests.kernels import record_golden as golden

SHAPES = {row.shape for row in ROWS}
every_recording = pytest.mark.parametrize(
    ("name", "framing"), [(name, framing) for name in golden.NAMES for framing in wire.FRAMINGS]
)


def values(table: pa.Table) -> list[list[object]]:
    """Return the rows in canonical form; columns are taken by position, for names need not be unique."""
    columns = [oracle.canonical(table.column(index)) for index in range(table.num_columns)]
    return [list(row) for row in zip(*columns, strict=True)]


def test_every_shape_has_a_recording() -> None:
    recorded: set[int] = set()
    for name in golden.NAMES:
        recorded |= set(plan(golden.load(name)[0], golden.policy(name)).descriptors[:, 0].tolist())
    assert recorded == SHAPES


@every_recording
def test_recording_decodes(name: str, framing: str) -> None:
    columns, rows = golden.load(name)
    table = wire.decode(columns, golden.bytes_of(name, framing), framing, policy=golden.policy(name))
    for batch in table.to_batches():
        batch.validate(full=True)
    assert values(table) == rows


@every_recording
def test_oracle_agrees(name: str, framing: str) -> None:
    columns, rows = golden.load(name)
    as_null = oracle.Policy(infinity_is_null=name == golden.INFINITE)
    found = oracle.decode(golden.wire_columns(columns), golden.bytes_of(name, framing), framing, as_null)
    assert [list(row) for row in found] == rows


@every_recording
def test_plain_profile_has_the_same_values(name: str, framing: str) -> None:
    columns, rows = golden.load(name)
    policy = replace(golden.policy(name), profile="plain")
    table = wire.decode(columns, golden.bytes_of(name, framing), framing, policy=policy)
    assert values(table) == rows
    assert not any(isinstance(field.type, pa.BaseExtensionType) for field in table.schema)


@every_recording
def test_however_the_bytes_arrive(name: str, framing: str) -> None:
    """One byte at a time, in odd pieces, in blocks smaller than a row: the values are the same."""
    columns, rows = golden.load(name)
    recorded, policy = golden.bytes_of(name, framing), golden.policy(name)
    for block_bytes, pieces in ((64, itertools.repeat(1)), (100, itertools.cycle((3, 50, 7))), (1000, ())):
        table = wire.decode(
            columns, recorded, framing, policy=policy, block_bytes=block_bytes, batch_bytes=512, pieces=pieces
        )
        assert values(table) == rows


@every_recording
def test_server_still_sends_the_same(name: str, framing: str, pool) -> None:
    """The recordings are what PostgreSQL sends today."""
    columns, received = wire.record(pool, golden.statement(name), framing, golden.policy(name))
    assert received == golden.bytes_of(name, framing)
    stored, _ = golden.load(name)
    assert [column.display_type for column in columns] == [column.display_type for column in stored]
