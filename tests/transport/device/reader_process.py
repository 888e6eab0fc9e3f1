"""A client in a process of its own: does what it is told, a JSON object a line, and answers so.  Run as a script."""

from __future__ import annotations

import base64
import ctypes
import json
import mmap
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pgflight import device
from pgflight.device.cuda import Cuda, cuda
from pgflight.device.errors import GpuNotVisibleError
from pgflight.device.mapping import MAPPINGS


class HostReaderCuda(Cuda):
    """The client's CUDA calls over files that `host_cuda.HostCuda` allocates."""

    def __init__(self) -> None:
        self.mapped: dict[int, tuple[mmap.mmap, int]] = {}
        self.synchronizations = 0

    def ordinal(self, gpu: str) -> int:
        if not gpu.startswith("GPU-00000000"):
            raise GpuNotVisibleError(f"the batch lies on {gpu}, which this process does not see")
        return int(gpu[-1])

    def open(self, handle: bytes, ordinal: int) -> int:
        path = Path(handle.rstrip(b"\0").decode())
        with path.open("r+b") as file:
            mapped = mmap.mmap(file.fileno(), 0)
        address = np.frombuffer(mapped, np.uint8).ctypes.data
        self.mapped[address] = (mapped, path.stat().st_size)
        return address

    def close(self, address: int, ordinal: int) -> None:
        del self.mapped[address]

    def extent(self, address: int, ordinal: int) -> tuple[int, int]:
        return address, self.mapped[address][1]

    def synchronize(self, ordinal: int) -> None:
        self.synchronizations += 1

    def copy_to_host(self, target: int, source: int, size_bytes: int, ordinal: int) -> None:
        ctypes.memmove(target, source, size_bytes)


class Reader:
    """What it can be told; each method is a command, its arguments the rest of the line."""

    def __init__(self, kind: str) -> None:
        self.connections = device.LeaseConnections(HostReaderCuda if kind == "host" else cuda)
        self.batches: dict[int, Any] = {}
        self.kept: list[Any] = []
        self.stop = threading.Event()
        self.changes = 0

    def open(self, offer: dict[str, Any], schema: str) -> object:
        self.schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(schema)))
        self.connection = self.connections.open(offer)
        self.stream = device.DeviceStream(self.connection)
        return self.stream.headers[device.LEASE_HEADER]

    def next_stream(self) -> object:
        self.stream = device.DeviceStream(self.connection)
        return self.stream.headers[device.LEASE_HEADER]

    def take(self, descriptor: str, number: int) -> object:
        self.batches[number] = self.stream.batch(descriptor.encode(), self.schema)
        return len(MAPPINGS)

    def read(self, number: int) -> object:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.schema) as writer:
            writer.write_batch(self.batches[number].to_arrow())
        return base64.b64encode(sink.getvalue()).decode()

    def drop(self, number: int) -> object:
        with self.batches.pop(number):
            return None

    def keep(self, number: int, column: str) -> object:
        """Keep a view of a column only."""
        self.kept.append(self.batches.pop(number).column(column).values)
        return self.kept[-1].__cuda_array_interface__["data"][0]

    def forget(self) -> object:
        self.kept.clear()
        return None

    def done(self) -> object:
        return self.stream.close()

    def close(self) -> object:
        return self.connections.close()

    def hammer(self, number: int) -> object:
        """Look at a batch again and again until told to stop, and count how often it is another."""
        first = self.batches[number].to_arrow()

        def look() -> None:
            while not self.stop.is_set():
                self.changes += not self.batches[number].to_arrow().equals(first)

        self.watcher = threading.Thread(target=look)
        self.watcher.start()
        return first.num_rows

    def changed(self) -> object:
        self.stop.set()
        self.watcher.join()
        return self.changes

    def fork(self, number: int) -> object:
        """Say what a forked child gets to see of a batch."""
        seeing, telling = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                self.batches[number].column(0)
            except device.DeviceError as failure:
                os.write(telling, type(failure).__name__.encode())
            self.batches.clear()
            os._exit(0)
        os.close(telling)
        os.waitpid(child, 0)
        return os.read(seeing, 100).decode()

    def cupy(self, number: int, column: str) -> object:
        """Return the array's address, the buffer's, and the sum."""
        values = self.batches[number].column(column).values
        array = self.batches[number].to_cupy(column)
        return [array.data.ptr, values.address, array.sum().get().item()]

    def torch(self, number: int, column: str) -> object:
        values = self.batches[number].column(column).values
        tensor = self.batches[number].to_torch(column)
        return [tensor.data_ptr(), values.address, tensor.sum().item()]

    def booleans(self, number: int, column: str) -> object:
        return self.batches[number].to_cupy(column).tolist()

    def pylibcudf(self, number: int) -> object:
        """Return per column libcudf's addresses and those of the buffers, then drop all but the table."""
        batch = self.batches.pop(number)
        table = batch.to_pylibcudf()
        ours = [
            [buffer.address for buffer in (column.validity, *column.buffers) if buffer is not None]
            for column in batch.columns
        ]
        theirs = []
        for column in table.columns():
            offsets = [child.data() for child in column.children()]
            spans = [column.null_mask(), *offsets, column.data()]
            theirs.append([span.ptr for span in spans if span is not None])
        self.kept.append(table)
        return [ours, theirs]

    def parquet(self, path: str) -> object:
        """Write the table that was imported last, from the GPU."""
        import pylibcudf as plc  # noqa: PLC0415 - where it is installed

        table = self.kept[-1]
        metadata = plc.io.types.TableInputMetadata(table)
        for column, name in zip(metadata.column_metadata, self.schema.names, strict=True):
            column.set_name(name)
        options = plc.io.parquet.ParquetWriterOptions.builder(plc.io.SinkInfo([path]), table)
        plc.io.parquet.write_parquet(options.metadata(metadata).build())
        return None


def main() -> None:
    reader = Reader(sys.argv[1])
    for line in sys.stdin:
        command = json.loads(line)
        name = command.pop("do")
        try:
            answer = {"answer": getattr(reader, name)(**command)}
        except (pa.ArrowException, ValueError, TypeError, RuntimeError) as failure:
            answer = {"error": type(failure).__name__, "text": str(failure)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
