"""Memory of received batches: kept for the next ones instead of given back to the system each time."""

import ctypes
import functools
import os
import sys

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
"""Parameters of mallopt(3), from glibc's malloc.h."""
KEPT_BYTES = 64 << 20
LARGEST_KEPT_BLOCK_BYTES = 8 << 20


@functools.cache
def keep_freed_memory() -> bool:
    """Let glibc keep up to 64 MiB of freed memory in this process; return whether it was asked to.

    By default it returns a freed batch to the system and faults in new pages for the next one, which costs the
    reader as much CPU time as receiving it. Nothing is changed where the environment says how malloc is to
    behave (``MALLOC_…``, ``GLIBC_TUNABLES``), or where the C library is another one.
    """
    if sys.platform != "linux" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)) and bool(
        mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT_BLOCK_BYTES)
    )
