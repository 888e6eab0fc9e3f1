"""The CUDA kernels alone, each by CUDA events: ``python -m benchmark.gpu_kernels``; needs a GPU, no PostgreSQL.

Blocks are made of rows like lineorder's and lineitem's, of long text, of arrays and of vectors.  Each block is decoded
once by the host twin too, and must be equal.
"""

from __future__ import annotations

import importlib
import random
import statistics
import struct
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from demo import lineorder
from kernels import host, wire
from kernels.backend import select_backend
from kernels.column import Column
from kernels.decoder import Decoder
from kernels.errors import ConfigError
from kernels.layout import WIRE_PAD_BYTES
from kernels.plan import plan
from kernels.typing import Uint8s
from transport.device.arrays import cupy_stream

MIB = 1 << 20
DISTINCT_ROWS = 20_000
"""Rows that are made; a block repeats them."""
INT4, INT8, DATE, BPCHAR, VARCHAR, TEXT, NUMERIC_15_2 = 23, 20, 1082, 1042, 1043, 25, (15 << 16 | 2) + 4
DIMENSIONS = 768
LAUNCHES = 200

Fields = list[bytes]
Launch = Callable[..., None]


@dataclass(frozen=True)
class Source:
    """A table to make blocks of."""

    name: str
    columns: tuple[Column, ...]
    rows: Callable[[], Iterator[Fields]]


def lineorder_rows() -> Iterator[Fields]:
    """Encode the rows that the demo would store."""
    batch = next(lineorder.batches(DISTINCT_ROWS))
    names = batch.schema.names
    for row in batch.to_pylist():
        yield [
            value.encode()
            if isinstance(value, str)
            else struct.pack("!q" if name == "lo_orderkey" else "!i", value)
            for name, value in zip(names, (row[name] for name in names), strict=True)
        ]


def lineitem_rows() -> Iterator[Fields]:
    """Make rows with lineitem's types and widths."""
    source = random.Random(1)  # noqa: S311 - it decides nothing
    ways = ("DELIVER IN PERSON", "COLLECT COD", "NONE", "TAKE BACK RETURN")
    words = ("carefully", "quickly", "final", "ironic", "deposits", "requests", "across", "the", "slyly", "bold")
    for number in range(DISTINCT_ROWS):
        prices = (source.randint(1, 50) * 100, source.randint(90_000, 10_000_000), source.randint(0, 10), 8)
        yield [
            struct.pack("!q", number // 4), *(struct.pack("!i", source.randint(1, 200_000)) for _ in range(3)),
            *(numeric(cents) for cents in prices), source.choice((b"N", b"R", b"A")), source.choice((b"O", b"F")),
            *(struct.pack("!i", source.randint(-2900, -300)) for _ in range(3)),
            source.choice(ways).ljust(25).encode(), source.choice(lineorder.SHIP_MODES).ljust(10).encode(),
            " ".join(source.choices(words, k=5))[:44].encode(),
        ]  # fmt: skip


def text_rows() -> Iterator[Fields]:
    """Make rows of one number and two texts, a part of them not ASCII."""
    source = random.Random(2)  # noqa: S311
    for number in range(DISTINCT_ROWS):
        german = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. " * source.randint(0, 8)
        yield [struct.pack("!q", number), f"{source.getrandbits(128):032x}".encode(), german.encode()]


def array_rows() -> Iterator[Fields]:
    """Make rows of two arrays, some elements of them NULL."""
    source = random.Random(3)  # noqa: S311
    for number in range(DISTINCT_ROWS):
        numbers = [struct.pack("!i", source.randint(0, 1 << 20)) for _ in range(source.randint(0, 20))]
        words = [source.choice((None, b"short", b"rather a long word")) for _ in range(source.randint(0, 4))]
        yield [struct.pack("!q", number), array(INT4, numbers), array(TEXT, words)]


def array(oid: int, values: Sequence[bytes | None]) -> bytes:
    """Encode an array as array_send does."""
    head = struct.pack("!iii", int(bool(values)), int(None in values), oid)
    parts = [struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value for value in values]
    return head + (struct.pack("!ii", len(values), 1) if values else b"") + b"".join(parts)


def vector_rows() -> Iterator[Fields]:
    """Make rows of a vector each, as pgvector sends it."""
    source = random.Random(4)  # noqa: S311
    for number in range(DISTINCT_ROWS // 20):
        numbers = struct.pack(f"!{DIMENSIONS}f", *(source.uniform(-1, 1) for _ in range(DIMENSIONS)))
        yield [struct.pack("!q", number), struct.pack("!hh", DIMENSIONS, 0) + numbers]


def numeric(cents: int) -> bytes:
    """Encode a numeric(15,2) as numeric_send does: no zero groups at either end."""
    groups = [cents // 100 // 10**8, cents // 100 // 10**4 % 10**4, cents // 100 % 10**4, cents % 100 * 100]
    weight = 2
    while groups and groups[0] == 0:
        groups.pop(0)
        weight -= 1
    while groups and groups[-1] == 0:
        groups.pop()
    return struct.pack(f"!hhHH{len(groups)}h", len(groups), weight if groups else 0, 0, 2, *groups)


SOURCES = (
    Source(
        "lineorder",
        tuple(
            Column(name, {"lo_orderkey": INT8, "lo_shippriority": BPCHAR}.get(name, INT4))
            if name not in {"lo_orderpriority", "lo_shipmode"}
            else Column(name, VARCHAR)
            for name in next(lineorder.batches(1)).schema.names
        ),
        lineorder_rows,
    ),
    Source(
        "lineitem",
        (
            Column("l_orderkey", INT8), *(Column(name, INT4) for name in ("partkey", "suppkey", "linenumber")),
            *(Column(name, 1700, NUMERIC_15_2) for name in ("quantity", "extendedprice", "discount", "tax")),
            Column("returnflag", BPCHAR), Column("linestatus", BPCHAR),
            *(Column(name, DATE) for name in ("shipdate", "commitdate", "receiptdate")),
            *(Column(name, BPCHAR) for name in ("shipinstruct", "shipmode")), Column("comment", VARCHAR),
        ),
        lineitem_rows,
    ),
    Source("text", (Column("id", INT8), Column("digest", TEXT), Column("body", TEXT)), text_rows),
    Source(
        "arrays",
        (
            Column("id", INT8),
            *(
                Column(name, 1, category="A", send="array_send", parts=(Column("", oid),))
                for name, oid in (("numbers", INT4), ("words", TEXT))
            ),
        ),
        array_rows,
    ),
    Source(
        "vectors",
        (Column("id", INT8), Column("embedding", 1, DIMENSIONS, type_name="vector", send="vector_send")),
        vector_rows,
    ),
)  # fmt: skip


def block_of(source: Source, size_bytes: int) -> tuple[Uint8s, int]:
    """Return (block with its pad, bytes of whole rows) of about that size."""
    messages = []
    for fields in source.rows():
        body = b"".join(struct.pack("!i", len(value)) + value for value in fields)
        messages.append(b"D" + struct.pack("!ih", len(body) + 6, len(fields)) + body)
    cycle = b"".join(messages)
    rows = cycle * (size_bytes // len(cycle))
    for message in messages:
        if len(rows) + len(message) > size_bytes:
            break
        rows += message
    block = np.zeros(size_bytes + WIRE_PAD_BYTES, np.uint8)
    block[: len(rows)] = np.frombuffer(rows, np.uint8)
    return block, len(rows)


@dataclass
class Stopwatch:
    """Times kernels and copies on one stream: by CUDA events, or by the clock where kernels are simulated."""

    cupy: Any
    stream: int
    marks: dict[str, list[tuple[Any, Any]]] = field(default_factory=lambda: defaultdict(list))
    calls_us: list[float] = field(default_factory=list)

    def mark(self) -> Any:
        """Return a moment of the stream."""
        if self.cupy is None:
            return time.perf_counter()
        event = self.cupy.cuda.Event()
        event.record(cupy_stream(self.stream))
        return event

    def wrap(self, launch: Launch) -> Launch:
        """Time every launch, on the device and of the call."""

        def timed(function: Any, blocks: Any, threads: int, stream: int, *arguments: Any) -> None:
            begin, called = self.mark(), time.perf_counter()
            launch(function, blocks, threads, stream, *arguments)
            self.calls_us.append((time.perf_counter() - called) * 1e6)
            self.marks[function.py_func.__name__].append((begin, self.mark()))

        return timed

    def copy(self, name: str, work: Callable[[], object]) -> None:
        """Time a copy."""
        begin = self.mark()
        work()
        self.marks[name].append((begin, self.mark()))

    def median_ms(self) -> dict[str, float]:
        """Return the medians, in the order of first use; everything must have been synchronised with."""
        return {
            name: statistics.median(self._elapsed_ms(*pair) for pair in pairs)
            for name, pairs in self.marks.items()
        }

    def _elapsed_ms(self, begin: Any, end: Any) -> float:
        if isinstance(begin, float):
            return float(end - begin) * 1e3
        return float(self.cupy.cuda.get_elapsed_time(begin, end))


def measure(source: Source, twin: Any, geometry: Any, size_bytes: int, rounds: int) -> tuple[Stopwatch, int, int]:
    """Return (times, bytes of the block, bytes of its batch) of one table."""
    memory, cupy = (
        importlib.import_module("kernels.cuda.memory"),
        None if twin.SIMULATED else importlib.import_module("cupy"),
    )
    block, end = block_of(source, size_bytes)
    planned = plan(source.columns)
    on_device = twin.allocate(block.size).array
    memory.upload(on_device, block, stream=0)
    decoder = twin.CudaDecoder(
        planned, twin.allocate, kind=wire.DATA_ROW, batch_bytes=2 * size_bytes, walk=host.scan, geometry=geometry
    )
    require_equal(decoder, on_device, block, end, source)
    watch = Stopwatch(cupy, 0)
    with_watch: list[Any] = [sys.modules[f"kernels.cuda.{name}"] for name in ("scan", "decode", "nested")]
    launch = with_watch[0].launch
    batch: Any = None
    try:
        for module in with_watch:
            module.launch = watch.wrap(launch)
        for _ in range(rounds):
            started = time.perf_counter()
            found = decoder.scan(on_device, 0, end, stream=0)
            scanned = time.perf_counter()
            batch = decoder.decode(on_device, found, stream=0)
            decoded = time.perf_counter()
            watch.marks["scan, as called"].append((started, scanned))
            watch.marks["decode, as called"].append((scanned, decoded))
    finally:
        for module in with_watch:
            module.launch = launch
    return watch, end, batch.used_bytes


def require_equal(decoder: Any, on_device: Any, block: Uint8s, end: int, source: Source) -> None:
    """Decode the block by both twins once, and compare."""
    found = decoder.scan(on_device, 0, end, stream=0)
    ours = decoder.decode(on_device, found, stream=0).to_host(_Memory, stream=0)
    other = Decoder(
        plan(source.columns), select_backend("cpu"), _Memory, kind=wire.DATA_ROW, batch_bytes=2 * block.size
    )
    wanted = other.decode(block, other.scan(block, 0, end))
    if found.rows != wanted.num_rows or not ours.equals(wanted):
        raise ValueError(f"{source.name}: the twins differ")


class _Memory:
    def __init__(self, size_bytes: int) -> None:
        self.array = np.zeros(-(-size_bytes // 64) * 64, np.uint8)


def copies(twin: Any, size_bytes: int, rounds: int) -> Stopwatch:
    """Time copies of a block's size between host and device."""
    memory, cupy = (
        importlib.import_module("kernels.cuda.memory"),
        None if twin.SIMULATED else importlib.import_module("cupy"),
    )
    watch = Stopwatch(cupy, 0)
    device = twin.allocate(size_bytes).array
    pageable = np.ones(size_bytes, np.uint8)
    pinned = pageable if cupy is None else importlib.import_module("cupyx").empty_pinned(size_bytes, np.uint8)
    for _ in range(rounds + 1):
        for name, there in (("pinned", pinned), ("pageable", pageable)):
            watch.copy(f"to the device, {name}", partial(memory.upload, device, there, stream=0))
            watch.copy(f"to the host, {name}", partial(memory.download, device, stream=0, into=there))
    return watch


def launch_costs(twin: Any) -> dict[str, float]:
    """Return microseconds of a call that starts a kernel, by who starts it."""
    rows, module = sys.modules["kernels.cuda.rows"], sys.modules["kernels.cuda.launch"]
    table = importlib.import_module("kernels.cuda.table")
    arrays: list[Any] = [twin.allocate(8 * size).array.view(np.int64) for size in (table.state_words(1), 64)]
    memory = importlib.import_module("kernels.cuda.memory")
    memory.upload(
        arrays[0], np.zeros(arrays[0].size, np.int64), stream=0
    )  # FAILURE is set: the kernel ends at once

    def by_numba(function: Any, blocks: int, threads: int, _stream: int, *arguments: Any) -> None:
        function[blocks, threads](*arguments)

    costs = {}
    for kind, start in (("by the driver", module.launch), ("by Numba", by_numba)):
        for count in (3, 3 if twin.SIMULATED else LAUNCHES):  # the first ones compile
            started = time.perf_counter()
            for _ in range(count):
                start(rows.sums_kernel, 1, 1, 0, 1, *arrays)
            costs[kind] = (time.perf_counter() - started) / count * 1e6
        memory.download(arrays[0], stream=0)
    return costs


def main(
    block_mib: Annotated[float, typer.Option(help="Size of a block.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds after the warm-up.")] = 11,
    only: Annotated[
        list[str] | None, typer.Option(help="lineorder, lineitem, text, arrays or vectors; repeatable.")
    ] = None,
    segment_bytes: Annotated[int | None, typer.Option(help="Geometry of the scan.")] = None,
    threads: Annotated[int | None, typer.Option(help="Geometry: threads of a block.")] = None,
    sum_threads: Annotated[int | None, typer.Option(help="Geometry: threads of a block that sums.")] = None,
    tile_rows: Annotated[int | None, typer.Option(help="Geometry: rows of a block.")] = None,
    gather_blocks: Annotated[int | None, typer.Option(help="Geometry: blocks per VARLEN column.")] = None,
) -> None:
    """Time scan and decode of synthetic blocks, kernel by kernel, and the copies around them."""
    console = Console(highlight=False)
    try:
        backend = select_backend("gpu")
    except ConfigError as failure:
        console.print(str(failure), markup=False)
        raise typer.Exit(1) from None
    twin = backend.twin
    chosen = {
        "segment_bytes": segment_bytes, "threads": threads, "sum_threads": sum_threads,
        "tile_rows": tile_rows, "gather_blocks": gather_blocks,
    }  # fmt: skip
    geometry = twin.Geometry(**{name: value for name, value in chosen.items() if value is not None})
    size_bytes = int(block_mib * MIB) // 8 * 8
    table = Table("what", "kernel", "ms", "GB/s of wire", title=f"{backend.reason}\n{geometry}")
    for source in SOURCES:
        if only and source.name not in only:
            continue
        watch, end, used = measure(source, twin, geometry, size_bytes, rounds)
        for name, elapsed_ms in watch.median_ms().items():
            table.add_row(source.name, name, f"{elapsed_ms:.3f}", f"{end / elapsed_ms / 1e6:.1f}")
        table.add_row(source.name, f"the batch: {used / MIB:.0f} MiB", "", "", end_section=True)
    for name, elapsed_ms in copies(twin, size_bytes, rounds).median_ms().items():
        table.add_row("copies", name, f"{elapsed_ms:.3f}", f"{size_bytes / elapsed_ms / 1e6:.1f}")
    for kind, microseconds in launch_costs(twin).items():
        table.add_row("a launch", f"two {kind}, an integer", f"{microseconds / 1e3:.4f}", "")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
