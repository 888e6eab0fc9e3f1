"""The kernels alone: a captured stream through scan and decode, block by block, on one core."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from benchmark.floor import drop
from kernels import layout, wire
from kernels.backend import HostBackend, select_backend, warm_up
from kernels.column import Column
from kernels.decoder import Decoder
from kernels.plan import plan
from kernels.typing import Uint8s
from transport.memory import RegionPool
from transport.messages import Request
from transport.opening import SessionOptions
from transport.pool import ConnectionPool
from transport.session import Session

BLOCK_BYTES = 1 << 20
PAD_BYTES = 64
MEMORY_BYTES = 256 << 20
FRAMINGS = ("copy", "extended")


@dataclass(frozen=True)
class Pass:
    """CPU time of one pass over a stream, and its rows; what the loop around it takes is left out."""

    scan_s: float
    decode_s: float
    rows: int


@dataclass(frozen=True)
class DecodingFigures:
    """Medians over all passes, of one core; a GB is 10⁹ bytes of the wire."""

    table: str
    framing: str
    wire_bytes: int
    rows: int
    columns: int
    scan_gb_per_s: float
    decode_gb_per_s: float
    both_gb_per_s: float
    scan_ns_per_row: float
    decode_ns_per_field: float


def measure(dsn: str, table: str, framing: str, passes: int) -> DecodingFigures:
    """Capture a table's stream and decode it again and again.

    Parameters
    ----------
    dsn, table
        The table must be filled.
    framing
        ``copy`` or ``extended``.
    passes
        Passes over the whole stream; one more comes first to warm up.
    """
    return measure_statement(dsn, f"SELECT * FROM {table}", table, framing, passes)


def measure_statement(dsn: str, sql: str, name: str, framing: str, passes: int) -> DecodingFigures:
    """Do the same with a statement, which is given a name."""
    columns, stream = _capture(dsn, sql, framing)
    backend = select_backend("cpu")
    warm_up(backend)
    done = [_decode(stream, columns, framing, backend) for _ in range(passes + 1)][1:]
    return _figures(name, framing, stream.size, len(columns), done)


def _figures(table: str, framing: str, size: int, columns: int, done: Sequence[Pass]) -> DecodingFigures:
    rows = done[0].rows
    scan_s = statistics.median(each.scan_s for each in done)
    decode_s = statistics.median(each.decode_s for each in done)
    return DecodingFigures(
        table=table,
        framing=framing,
        wire_bytes=size,
        rows=rows,
        columns=columns,
        scan_gb_per_s=size / scan_s / 1e9,
        decode_gb_per_s=size / decode_s / 1e9,
        both_gb_per_s=size / (scan_s + decode_s) / 1e9,
        scan_ns_per_row=scan_s / rows * 1e9,
        decode_ns_per_field=decode_s / (rows * columns) * 1e9,
    )


def _capture(dsn: str, sql: str, framing: str) -> tuple[tuple[Column, ...], Uint8s]:
    """Read a whole reply into memory, messages and all."""
    copy = framing == "copy"
    request = Request(f"COPY ({sql}) TO STDOUT (FORMAT BINARY)" if copy else sql, copy=copy)
    memory = RegionPool(MEMORY_BYTES)
    pieces: list[Uint8s] = []
    received = 0
    with closing(ConnectionPool(dsn)) as pool, Session(pool, SessionOptions()) as session:
        columns = session.describe(sql, trust_not_null=True)
        reply = session.run(request, memory.allocate, lambda: None)
        while reply.outstanding:
            reply.fill()
            pieces.append(reply.block[reply.end - (reply.received_bytes - received) : reply.end].copy())
            received = reply.received_bytes
            drop(reply)
        session.finish()
    return columns, np.concatenate(pieces)


def _decode(stream: Uint8s, columns: Sequence[Column], framing: str, backend: HostBackend) -> Pass:
    """Take the stream through a block as the server does: copied in (it is in the cache then), scanned, decoded.

    A batch's memory is used again for the next one, as it is once a client has received it.
    """
    memory = RegionPool(MEMORY_BYTES)
    kind = wire.COPY_DATA if framing == "copy" else wire.DATA_ROW
    decoder = Decoder(plan(columns), backend, memory.allocate, kind=kind, batch_bytes=BLOCK_BYTES)
    block = np.zeros(BLOCK_BYTES + PAD_BYTES, np.uint8)
    scan_s = decode_s = 0.0
    at = 0
    while at < stream.size:
        size = min(BLOCK_BYTES, stream.size - at)
        block[:size] = stream[at : at + size]
        position, reason = 0, layout.SCAN_FULL
        while reason != layout.SCAN_MORE:
            started = time.thread_time()
            found = decoder.scan(block, position, size, at)
            scanned = time.thread_time()
            if found.rows:
                decoder.decode(block, found, at)
                decode_s += time.thread_time() - scanned
            scan_s += scanned - started
            position, reason = found.position, found.reason
            if reason == layout.SCAN_MESSAGE:
                position += 1 + int.from_bytes(block[position + 1 : position + 5].tobytes(), "big")
        at += position
    return Pass(scan_s, decode_s, decoder.rows)
