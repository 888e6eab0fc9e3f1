"""How the work of a block is cut up for a device."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes of segments, tiles and thread blocks; results do not depend on them.

    Parameters
    ----------
    segment_bytes : int
        Bytes of the block that one thread of the scan walks; at least 8.
    threads : int
        Threads of a block where threads work alone.
    sum_threads : int
        Threads of a block that sums up: at most kernels.cuda.scan.MAX_THREADS.
    tile_rows : int
        Rows that one block decodes; a multiple of 32.
    gather_blocks : int
        Blocks per VARLEN column at most.
    """

    segment_bytes: int = 1024
    threads: int = 128
    sum_threads: int = 512
    tile_rows: int = 128
    gather_blocks: int = 1024
