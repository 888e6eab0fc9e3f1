"""What a directory's disk gives to reads and writes that leave the page cache aside, measured."""

from __future__ import annotations

import errno
import mmap
import os
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kernels.errors import ConfigError

PIECE_BYTES = 4 << 20
"""A multiple of any disk's blocks."""
THREADS = 4


@dataclass(frozen=True, slots=True)
class Rate:
    """One measurement.

    Parameters
    ----------
    name : str
    size_bytes : int
    seconds : float
    """

    name: str
    size_bytes: int
    seconds: float

    @property
    def gb_per_s(self) -> float:
        """10⁹ bytes a second."""
        return self.size_bytes / self.seconds / 1e9


@contextmanager
def scratch_file(directory: Path) -> Iterator[Path]:
    """Provide a name in the directory; what is there in the end is removed."""
    path = directory / f".pgflight-check-{secrets.token_hex(8)}"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def takes_direct_io(directory: Path) -> bool:
    """Tell whether files of the directory can be opened past the page cache.

    Raises
    ------
    ConfigError
        No file can be made there.
    """
    with scratch_file(directory) as path:
        try:
            path.touch()
            os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
        except OSError as failure:
            if failure.errno == errno.EINVAL:
                return False
            raise ConfigError(f"cannot use {directory}: {failure.strerror}") from failure
    return True


def write(path: Path, size_bytes: int, *, direct: bool) -> Rate:
    """Write a file of a whole number of pieces, and have it on the disk."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | (os.O_DIRECT if direct else 0)
    with _piece(os.urandom(1 << 16)) as piece:
        handle = os.open(path, flags, 0o600)
        try:
            started = time.perf_counter()
            for at in range(0, size_bytes, PIECE_BYTES):
                _whole(os.pwrite(handle, piece, at))
            os.fsync(handle)
            seconds = time.perf_counter() - started
        finally:
            os.close(handle)
    return Rate("write, direct" if direct else "write, by the page cache", size_bytes, seconds)


def read(path: Path, size_bytes: int, *, direct: bool, threads: int = THREADS) -> Rate:
    """Read a file of a whole number of pieces, by several threads."""
    handle = os.open(path, os.O_RDONLY | (os.O_DIRECT if direct else 0))
    try:
        started = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda first: _read_share(handle, first, size_bytes, threads), range(threads)))
        seconds = time.perf_counter() - started
    finally:
        os.close(handle)
    return Rate("read, direct" if direct else "read, from the page cache", size_bytes, seconds)


def measure(directory: Path, size_bytes: int) -> list[Rate]:
    """Measure what the disk gives, direct where it can, and the page cache for comparison.

    Raises
    ------
    ConfigError
        The directory cannot be used.
    """
    size = -(-size_bytes // PIECE_BYTES) * PIECE_BYTES
    direct = takes_direct_io(directory)
    with scratch_file(directory) as path:
        try:
            rates = [write(path, size, direct=direct)]
            if direct:
                rates.append(read(path, size, direct=True))
            read(path, size, direct=False)  # brings it into the page cache
            return [*rates, read(path, size, direct=False)]
        except OSError as failure:
            raise ConfigError(f"cannot measure {directory}: {failure.strerror}") from failure


def _read_share(handle: int, first: int, size_bytes: int, threads: int) -> None:
    with _piece() as piece:
        for at in range(first * PIECE_BYTES, size_bytes, threads * PIECE_BYTES):
            _whole(os.preadv(handle, [piece], at))


@contextmanager
def _piece(pattern: bytes = b"") -> Iterator[memoryview]:
    """Provide memory that begins on a page: what direct reads and writes ask for."""
    with mmap.mmap(-1, PIECE_BYTES) as memory:
        if pattern:
            memory.write(pattern * (PIECE_BYTES // len(pattern)))
        view = memoryview(memory)
        try:
            yield view
        finally:
            view.release()


def _whole(count: int) -> None:
    if count != PIECE_BYTES:
        raise OSError(errno.EIO, "a piece was read or written in part")
