"""The GPU pipeline without PostgreSQL: ``python -m benchmark.gpu_pipeline``; needs a GPU.

Pinned blocks of whole rows go to the GPU again and again, by several streams, through the server's own decoders, into
finished Arrow columns that stay there.  Each table's block is decoded once by the host twin too, and must be equal.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmark.gpu_kernels import SOURCES, Source, block_of
from flight_server.gpu.decoding import FetchingDecoder, GpuDecoder, GpuOptions, Gpus
from kernels import wire
from kernels.backend import select_backend
from kernels.decoder import Decoder, Scan
from kernels.errors import ConfigError
from kernels.plan import plan
from kernels.typing import Uint8s
from transport.device.cuda import cuda
from transport.memory import RegionPool
from transport.modes.counters import Counters

MIB = 1 << 20
GB = 1e9


class StayingDecoder(GpuDecoder):
    """Leaves the batches on the GPU."""

    def decode(self, _block: Uint8s, found: Scan, base: int = 0) -> Any:
        """Decode the rows of the last scan."""
        with self._gpus.cuda.on(self._ordinal):
            return self._twin.decode_there(found, base)


class Replay:
    """One table's block, in pinned memory.

    Parameters
    ----------
    gpus : Gpus
    source : Source
    size_bytes : int
        Of the block, the pad not included.
    """

    def __init__(self, gpus: Gpus, source: Source, size_bytes: int) -> None:
        self._gpus = gpus
        self._plan = plan(source.columns)
        block, self.end = block_of(source, size_bytes)
        self._region = gpus.pinned.allocate(block.size)
        self._region.array[: block.size] = block
        self._size_bytes = size_bytes

    def require_equal(self) -> None:
        """Compare what the twins make of the block.

        Raises
        ------
        ValueError
            They differ.
        """
        block, size = self._region.array, 2 * self._size_bytes
        ours = self._decoder(FetchingDecoder)
        batch = ours.decode(block, ours.scan(block, 0, self.end))
        memory = RegionPool(max(16 * size, 4 * MIB))
        other = Decoder(self._plan, select_backend("cpu"), memory.allocate, kind=wire.DATA_ROW, batch_bytes=size)
        if not batch.equals(other.decode(block, other.scan(block, 0, self.end))):
            raise ValueError("the twins differ")

    def seconds(self, streams: int, blocks: int) -> float:
        """Return how long so many streams take for so many blocks each."""
        decoders = [self._decoder(StayingDecoder) for _ in range(streams)]
        with ThreadPoolExecutor(streams) as pool:
            list(pool.map(self._work, decoders, [2] * streams))  # memory is taken, kernels are loaded
            started = time.perf_counter()
            list(pool.map(self._work, decoders, [blocks] * streams))
            return time.perf_counter() - started

    def _work(self, decoder: StayingDecoder, blocks: int) -> None:
        block = self._region.array
        for number in range(1, blocks + 1):
            base = number * self.end  # a place in the reply that it has not seen: the block is copied again
            found = decoder.scan(block, 0, self.end, base)
            if found.position != self.end:
                raise ValueError(f"the scan ended at {found.position}, not at {self.end}")
            decoder.decode(block, found, base)

    def _decoder(self, kind: Any) -> Any:
        return kind(
            self._gpus,
            self._gpus.next(),
            self._plan,
            copy=False,
            batch_bytes=2 * self._size_bytes,
            counters=Counters(),
        )


def main(
    block_mib: Annotated[int, typer.Option(min=1, max=512, help="Size of a block, a power of two.")] = 64,
    streams: Annotated[str, typer.Option(help="Numbers of streams, with commas between.")] = "1,2,4,8",
    total_gb: Annotated[float, typer.Option(help="Bytes of rows that each run moves, in GB (10⁹).")] = 20,
    only: Annotated[list[str] | None, typer.Option(help="lineorder, lineitem or text; repeatable.")] = None,
) -> None:
    """Move blocks to the GPU and decode them there, by several streams."""
    console = Console(highlight=False)
    try:
        backend: Any = select_backend("gpu")
        options = GpuOptions(block_mib=2 * block_mib, pinned_blocks=16, memory_mib=32 * 1024)
        gpus = Gpus(backend, cuda(), options)
    except ConfigError as failure:
        console.print(str(failure), markup=False)
        raise typer.Exit(1) from None
    table = Table(
        "table", "streams", "blocks", "GB", "seconds", "GB/s of rows", title=f"blocks of {block_mib} MiB"
    )
    for source in SOURCES:
        if only and source.name not in only:
            continue
        replay = Replay(gpus, source, block_mib * MIB)
        replay.require_equal()
        for count in map(int, streams.split(",")):
            blocks = max(1, round(total_gb * GB / replay.end / count))
            moved = replay.end * blocks * count / GB
            seconds = replay.seconds(count, blocks)
            row = (source.name, str(count), str(blocks * count), f"{moved:.1f}", f"{seconds:.3f}")
            table.add_row(*row, f"{moved / seconds:.1f}")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
