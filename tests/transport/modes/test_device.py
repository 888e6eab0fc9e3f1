"""A spool file into device memory, block by block: aligned reads, rows over block borders, growth, the end."""

from __future__ import annotations

import ctypes
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from benchmark import replay
from flight_server.reading.replies import decode_replies
from kernels import wire
from kernels.backend import select_backend
from kernels.decoder import Decoder
from kernels.errors import ConnectionLostError, OverloadedError
from kernels.plan import plan
from transport.memory import RegionPool
from transport.messages import Request
from transport.modes.counters import CountedReader, Counters
from transport.modes.device import PAGE_BYTES, DeviceFileReply, DeviceOffsetBuffer, DeviceReply
from transport.modes.through_file import ThroughFile
from transport.spool_files import SpoolSink

ROWS = 20_000


class HostSide:
    """Device memory that is the host's: what is asked of it is looked at."""

    def __init__(self, memory: RegionPool) -> None:
        self.resident = False
        self.allocate = memory.allocate
        self.reads: list[tuple[int, int, int]] = []
        self.synchronized = 0

    def on(self) -> AbstractContextManager[None]:
        return nullcontext()

    def upload(self, address: int, source: int, size_bytes: int) -> None:
        self.move(address, source, size_bytes)

    def move(self, target: int, source: int, size_bytes: int) -> None:
        assert abs(target - source) >= size_bytes, "device copies may not overlap"
        _bytes(target, size_bytes)[:] = _bytes(source, size_bytes)

    def read_file(self, path: str, file_offset: int, array: Any) -> int:
        self.reads.append((file_offset, array.ctypes.data % 64, array.nbytes))
        with Path(path).open("rb") as file:
            return os.preadv(file.fileno(), [memoryview(array)], file_offset)

    def synchronize(self) -> None:
        self.synchronized += 1

    def address_of(self, array: Any) -> int:
        return int(array.ctypes.data)


def _bytes(address: int, size: int) -> Any:
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))


def decoded(reply: Any, memory: RegionPool, source: replay.Source) -> pa.Table:
    backend = select_backend("cpu")
    decoder = Decoder(plan(source.columns), backend, memory.allocate, kind=wire.DATA_ROW, batch_bytes=1 << 16)
    reply.send(Request("", copy=False))
    return pa.Table.from_batches(decode_replies(reply, decoder, copy=False))


@pytest.mark.parametrize("block_bytes", [1 << 16, 70_001, 1 << 22])
def test_a_file_is_read_in_aligned_pieces(memory: RegionPool, tmp_path: Path, block_bytes: int) -> None:
    source, counters, side = replay.generated(ROWS), Counters(), HostSide(memory)
    sink = SpoolSink(tmp_path / "wire", lambda _: True)
    through = ThroughFile(CountedReader(replay.MemoryReader(source.data), counters), sink, counters)
    reply = DeviceFileReply(
        side, through, counters, block_bytes=block_bytes, max_row_bytes=1 << 20, check=lambda: None
    )
    table = decoded(reply, memory, source)
    assert table["id"].to_pylist() == list(range(1, ROWS + 1))
    assert counters.read_bytes == counters.written_bytes == len(source.data) == reply.received_bytes
    assert all(offset % PAGE_BYTES == 0 for offset, _, _ in side.reads), "whole pages but for the end"
    assert all(size % PAGE_BYTES == 0 for _, _, size in side.reads[:-1])
    assert len(side.reads) >= len(source.data) // (block_bytes + 2 * PAGE_BYTES)
    del table, reply
    sink.close()


def test_chunks_go_to_their_offsets(memory: RegionPool) -> None:
    source, counters, side = replay.generated(ROWS), Counters(), HostSide(memory)
    reader = CountedReader(replay.MemoryReader(source.data), counters)
    reply = DeviceReply(side, reader, lambda: DeviceOffsetBuffer(side, 8 << 20, counters), check=lambda: None)
    table = decoded(reply, memory, source)
    assert table["id"].to_pylist() == list(range(1, ROWS + 1))
    assert (counters.device_copies, counters.device_bytes) == (counters.chunks, len(source.data))
    assert counters.copies == 0
    assert side.synchronized == 1
    del table, reply


def test_a_file_that_is_cut_is_noticed(memory: RegionPool, tmp_path: Path) -> None:
    source, counters, side = replay.generated(ROWS), Counters(), HostSide(memory)
    sink = SpoolSink(tmp_path / "wire", lambda _: True)
    through = ThroughFile(replay.MemoryReader(source.data), sink, counters)
    reply = DeviceFileReply(
        side, through, counters, block_bytes=1 << 16, max_row_bytes=1 << 20, check=lambda: None
    )
    reply.send(Request("", copy=False))
    reply.fill()
    os.truncate(tmp_path / "wire", 1000)
    reply.begin = reply.end
    with pytest.raises(ConnectionLostError, match="were read from the spool file"):
        reply.fill()
    sink.close()
    del reply


def test_a_row_that_is_too_large_is_refused(memory: RegionPool, tmp_path: Path) -> None:
    source, counters, side = replay.generated(ROWS), Counters(), HostSide(memory)
    sink = SpoolSink(tmp_path / "wire", lambda _: True)
    through = ThroughFile(replay.MemoryReader(source.data), sink, counters)
    reply = DeviceFileReply(
        side, through, counters, block_bytes=1 << 16, max_row_bytes=1 << 17, check=lambda: None
    )
    reply.send(Request("", copy=False))
    with pytest.raises(OverloadedError, match="max_row_mib"):
        while True:
            reply.fill()
    sink.close()
    del reply
