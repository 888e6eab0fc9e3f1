"""How the work of a block is cut up for a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_THREADS: Final = 1024
"""Threads of a block at most: so much shared memory the sums take."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes of segments, tiles and thread blocks; results do not depend on them.

    Parameters
    ----------
    segment_bytes : int
        Bytes of the block that one thread of the scan walks.
    threads : int
        Threads of a block where threads work alone.
    sum_threads : int
        Threads of a block that sums up.
    tile_rows : int
        Rows that one block decodes; a multiple of 32.
    gather_blocks : int
        Blocks per VARLEN column at most.

    Raises
    ------
    ValueError
        Kernels cannot work like that.
    """

    segment_bytes: int = 1024
    threads: int = 128
    sum_threads: int = 512
    tile_rows: int = 128
    gather_blocks: int = 1024

    def __post_init__(self) -> None:
        threads = max(self.threads, self.sum_threads)
        least = min(self.segment_bytes, self.threads, self.sum_threads, self.tile_rows, self.gather_blocks)
        if least < 1 or threads > MAX_THREADS or self.tile_rows % 32:
            raise ValueError(f"no geometry for kernels: {self}")
