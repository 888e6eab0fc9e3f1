"""The pipeline without PostgreSQL: a stream from memory through a transport and the kernels; batches are dropped."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flight_server.reading.replies import decode_replies
from flight_server.reading.stages import Stages
from kernels import wire
from kernels.backend import select_backend, warm_up
from kernels.column import Column
from kernels.errors import ConnectionLostError
from kernels.plan import plan
from transport.memory import RegionPool
from transport.messages import Request, message
from transport.modes.moving import FILE, GDS, TRANSPORTS, Moving
from transport.spool import Recording, Spool, SpoolOptions

GENERATED = "generated"
BLOCK_BYTES = 1 << 20
MEMORY_BYTES = 512 << 20
SOCKET_BYTES = 512 << 10
"""What one receive gives at most: as a socket whose low-water mark is this."""
INT4, INT8, FLOAT8, TEXT = 23, 20, 701, 25
ROW = np.dtype(
    [
        ("kind", "u1"), ("length", ">i4"), ("fields", ">i2"),
        ("id_bytes", ">i4"), ("id", ">i8"),
        ("quantity_bytes", ">i4"), ("quantity", ">i4"),
        ("price_bytes", ">i4"), ("price", ">f8"),
        ("mode_bytes", ">i4"), ("mode", "S10"),
    ]
)  # fmt: skip
COLUMNS = (Column("id", INT8), Column("quantity", INT4), Column("price", FLOAT8), Column("mode", TEXT))
SPOOL_MAX_BYTES = 64 << 30


class ReplayError(RuntimeError):
    """The file is no reply that can be replayed."""


@dataclass(frozen=True)
class Source:
    """A reply in memory."""

    name: str
    columns: Sequence[Column]
    copy: bool
    replies: int
    data: memoryview


@dataclass(frozen=True)
class ReplayFigures:
    """One pass through a transport; a GB is 10⁹ bytes of the wire."""

    transport: str
    rows: int
    wire_bytes: int
    seconds: float
    cpu_s: float
    gb_per_s: float
    moved: dict[str, int]
    stages: dict[str, dict[str, float]]


class MemoryReader:
    """Gives a reply out piece by piece, as a socket would."""

    name = "memory"

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def send(self, request: Request) -> None:
        """Ask for nothing: the reply is there."""

    def receive(self, view: memoryview) -> int:
        """Copy the next piece."""
        count = min(len(view), SOCKET_BYTES, len(self._data) - self._at)
        if count == 0:
            raise ConnectionLostError("the replayed reply ends in the middle")
        view[:count] = self._data[self._at : self._at + count]
        self._at += count
        return count

    def release(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def generated(rows: int) -> Source:
    """Make a reply of plausible rows, never zeros."""
    numbers = np.arange(1, rows + 1, dtype=np.uint64)
    mixed = numbers * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)
    table = np.zeros(rows, ROW)
    table["kind"], table["length"], table["fields"] = wire.DATA_ROW, ROW.itemsize - 1, len(COLUMNS)
    table["id_bytes"], table["quantity_bytes"], table["price_bytes"], table["mode_bytes"] = 8, 4, 8, 10
    table["id"], table["quantity"], table["price"] = numbers, mixed % 50, mixed / 100.0
    modes = np.array([b"TRUCK     ", b"AIR FREIGH", b"MAIL      ", b"SHIP      "], "S10")
    table["mode"] = modes[(mixed % 4).astype(np.int64)]
    end = message(b"C", b"SELECT %d\0" % rows) + message(b"Z", b"T")
    return Source(GENERATED, COLUMNS, copy=False, replies=1, data=memoryview(table.tobytes() + end))


def stored(path: Path) -> Source:
    """Read a stream of a spooled result: a ``.wire`` file with its index beside it.

    Raises
    ------
    ReplayError
        There is no such stream.
    """
    try:
        facts: dict[str, Any] = json.loads((path.parent / "index.json").read_text())
        (stream,) = (stream for stream in facts["streams"] if stream["file"] == path.name)
        columns = tuple(Column.of(column) for column in facts["columns"])
        return Source(str(path), columns, facts["copy"], stream["replies"], memoryview(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError) as failure:
        raise ReplayError(f"{path}: not a stream of a spooled result ({failure})") from failure


def replay(source: Source, transports: Sequence[str], repeat: int) -> Iterator[ReplayFigures]:
    """Yield the median pass of each transport; one more pass comes first to warm up."""
    backend = select_backend("cpu")
    warm_up(backend)
    for name in transports:
        if name not in TRANSPORTS or name == FILE:
            raise ReplayError(f"transport {name!r} cannot be replayed: choose from {', '.join(TRANSPORTS[:-1])}")
        with _scratch(name) as recording:
            passes = [_pass(source, name, recording) for _ in range(repeat + 1)][1:]
        yield sorted(passes, key=lambda one: one.seconds)[len(passes) // 2]


def _pass(source: Source, name: str, recording: Recording | None) -> ReplayFigures:
    memory, stages = RegionPool(MEMORY_BYTES), Stages()
    limit = len(source.data) + BLOCK_BYTES
    moving = Moving(name, collecting=RegionPool(3 * limit), limit_bytes=limit, recording=recording)
    kind = wire.COPY_DATA if source.copy else wire.DATA_ROW
    decoder = select_backend("cpu").decoder(
        plan(source.columns), memory.allocate, kind=kind, batch_bytes=BLOCK_BYTES
    )
    started, started_cpu = time.perf_counter(), time.process_time()
    reply = moving(
        MemoryReader(source.data),
        memory.allocate,
        block_bytes=BLOCK_BYTES,
        max_row_bytes=64 * BLOCK_BYTES,
        check=lambda: None,
        patience_s=0.05,
    )
    for _ in range(source.replies):
        reply.send(Request("", copy=source.copy))
    for _ in decode_replies(reply, decoder, copy=source.copy, stages=stages):
        pass
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - started_cpu
    moved: Any = moving.facts()["moved"]
    size = len(source.data)
    return ReplayFigures(name, decoder.rows, size, seconds, cpu_s, size / seconds / 1e9, moved, stages.facts())


@contextmanager
def _scratch(name: str) -> Iterator[Recording | None]:
    """Provide ``gds`` with a spool, in the directory for temporary files."""
    with ExitStack() as stack:
        if name != GDS:
            yield None
            return
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pgflight-replay-")))
        spool = Spool(SpoolOptions(directory, SPOOL_MAX_BYTES, 0))
        stack.callback(spool.close)
        yield stack.enter_context(spool.record("", ""))
