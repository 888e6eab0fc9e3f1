"""Where memory is shared between processes: the same tests over host memory everywhere, and on a GPU where one is."""

from __future__ import annotations

import base64
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pytest

from kernels.backend import gpus_present
from tests.transport.device.host_cuda import HostCuda, host_view
from transport.device.arrays import view
from transport.device.cuda import Cuda
from transport.device.descriptor import BUFFER_ALIGN_BYTES, ColumnExtents
from transport.device.exports import Exports, ExportStream
from transport.device.leases import LeaseServer, LeaseSocket
from transport.device.ledger import LeaseLimits
from transport.device.protocol import parse_reader
from transport.device.slabs import SLAB_GRAIN_BYTES, SlabSet

READER = Path(__file__).with_name("reader_process.py")
ROOT = READER.parents[3]
SLAB = SLAB_GRAIN_BYTES
WORLDS = ["host", *([pytest.param("gpu", marks=pytest.mark.gpu)] if gpus_present() else [])]


class ReaderError(Exception):
    """What a reader process said instead of an answer."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


@dataclass
class ReaderProcess:
    """A client in a process of its own."""

    process: subprocess.Popen[str]
    client: str = ""
    stream: int = 0

    def tell(self, do: str, **arguments: object) -> Any:
        self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the reader process is gone"
        answer = json.loads(line)
        if "error" in answer:
            raise ReaderError(answer["error"], answer["text"])
        return answer["answer"]

    def open(self, offer: dict[str, Any], schema: pa.Schema) -> Self:
        said = self.tell("open", offer=offer, schema=base64.b64encode(schema.serialize()).decode())
        self.client, self.stream = parse_reader(said)
        return self

    def next_stream(self) -> None:
        self.client, self.stream = parse_reader(self.tell("next_stream"))

    def read(self, number: int) -> pa.RecordBatch:
        with pa.ipc.open_stream(base64.b64decode(self.tell("read", number=number))) as stream:
            return stream.read_next_batch()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        self.kill()
        self.process.stdin.close()
        self.process.stdout.close()


@dataclass
class World:
    """One kind of memory, and servers and readers of it."""

    name: str
    cuda: Cuda
    make_view: Callable[..., Any]
    directory: Path
    stack: ExitStack = field(repr=False)

    def serve(self, *, slabs: int = 2, wait_s: float = 30.0, **limits: float) -> Service:
        gpu = self.cuda.gpus()[0]
        listener = LeaseSocket(self.directory / "lease.sock")
        exports = Exports(
            self.cuda,
            [SlabSet(self.cuda, gpu, slab_bytes=SLAB, maximum_bytes=slabs * SLAB)],
            LeaseLimits(**({"client_bytes": SLAB} | limits)),
            socket=str(listener.path),
            wait_s=wait_s,
            make_view=self.make_view,
        )
        service = Service(self, exports, LeaseServer(listener, exports))
        self.stack.callback(service.server.close)
        return service

    def free_bytes(self) -> int:
        """What the device has left, with all that died there gone."""
        return self.cuda.memory(0)[0]

    def reader(self, **environment: str) -> ReaderProcess:
        path = os.pathsep.join([str(ROOT), str(ROOT / "client"), os.environ.get("PYTHONPATH", "")])
        process = subprocess.Popen(
            [sys.executable, str(READER), self.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path, **environment},
        )
        reader = ReaderProcess(process)
        self.stack.callback(reader.end)
        return reader


@dataclass
class Service:
    """A server's memory side."""

    world: World
    exports: Exports
    server: LeaseServer

    def reader(self, schema: pa.Schema) -> ReaderProcess:
        """Start a client."""
        return self.world.reader().open(self.server.offer(), schema)

    def stream(self, reader: ReaderProcess) -> ExportStream:
        return self.exports.stream(reader.client, reader.stream, 0)

    def publish(self, stream: ExportStream, batch: pa.RecordBatch) -> str:
        """Lend a batch; return its descriptor."""
        packed, columns = lay_out(batch)
        region = stream.allocate(packed.size)
        self.world.cuda.copy_to_device(region.address, packed.ctypes.data, packed.size, 0)
        described = stream.publish(
            region, used_bytes=packed.size, rows=batch.num_rows, columns=columns, cuda_stream=0
        )
        return described.to_json().decode()

    def send(self, reader: ReaderProcess, batch: pa.RecordBatch, number: int = 0) -> Any:
        """Lend a batch to a reader, and have it taken."""
        return reader.tell("take", descriptor=self.publish(self.stream(reader), batch), number=number)

    def leases(self) -> int:
        return self.exports.statistics().leases

    def all_free(self) -> bool:
        seen = self.exports.statistics()
        return seen.clients == seen.leases == seen.quarantined_bytes == 0 and seen.free_bytes == seen.slab_bytes


def lay_out(batch: pa.RecordBatch) -> tuple[np.ndarray, list[ColumnExtents]]:
    """Place a batch's buffers in one region, as decoding does."""
    pieces: list[bytes] = []
    at = 0

    def place(data: bytes) -> tuple[int, int]:
        nonlocal at
        start = at
        padded = -(-len(data) // BUFFER_ALIGN_BYTES) * BUFFER_ALIGN_BYTES
        pieces.append(data.ljust(padded, b"\0"))
        at += padded
        return start, len(data)

    def column(array: pa.Array, values: int | None = None) -> ColumnExtents:
        plain = array.storage if isinstance(array, pa.ExtensionArray) else array
        own = [buffer and buffer.to_pybytes() for buffer in plain.buffers()[: OWN_BUFFERS.get(plain.type.id)]]
        buffers = [place(own[0]) if plain.null_count else None, *(place(buffer or b"") for buffer in own[1:])]
        parts = [column(part, len(part)) for part in parts_of(plain)]
        return ColumnExtents(plain.null_count, buffers, parts, values)

    columns = [column(array) for array in batch.columns]
    return np.frombuffer(b"".join(pieces).ljust(64, b"\0"), np.uint8), columns


OWN_BUFFERS = {pa.lib.Type_STRUCT: 1, pa.lib.Type_FIXED_SIZE_LIST: 1, pa.lib.Type_LIST: 2}
"""A nested array's buffers stand before those of its parts."""


def parts_of(array: pa.Array) -> list[pa.Array]:
    """Return the children of an array."""
    if pa.types.is_struct(array.type):
        return [array.field(index) for index in range(array.type.num_fields)]
    return [array.values] if pa.types.is_list(array.type) or pa.types.is_fixed_size_list(array.type) else []


def world(name: str, directory: Path) -> Iterator[World]:
    """Make a world; afterwards all of it is gone."""
    with ExitStack() as stack:
        if name == "gpu":
            importlib.import_module("cupy")
            yield World(name, Cuda(), view, directory, stack)
        else:
            cuda = HostCuda()
            stack.callback(cuda.close)
            yield World(name, cuda, host_view, directory, stack)
