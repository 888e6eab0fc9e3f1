"""The files of a spooled result: written beside a read, read like a connection."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
import xxhash

from kernels.errors import ConnectionLostError
from transport.messages import Request
from transport.reader import Reader

log = structlog.get_logger("pgflight.spool")

WRITE_BYTES = 4 << 20
"""Files are written in pieces of this size, aligned to it."""


class SpoolSink:
    """Collects what one stream receives and writes it in large pieces; trouble ends the writing, not the read.

    Parameters
    ----------
    path : Path
    take_room : callable
        Asked before each piece whether so many bytes may be written.
    """

    def __init__(self, path: Path, take_room: Callable[[int], bool]) -> None:
        self._path = path
        self._take_room = take_room
        self._file: Any = path.open("x+b", buffering=0)
        self._buffer = bytearray(WRITE_BYTES)
        self._used = 0
        self._digest = xxhash.xxh3_128()
        self.size_bytes = 0
        self.replies = 0

    def write(self, data: memoryview) -> None:
        """Take more bytes."""
        while data and self._file is not None:
            until_aligned = WRITE_BYTES - self.size_bytes % WRITE_BYTES
            count = min(len(data), until_aligned - self._used)
            self._buffer[self._used : self._used + count] = data[:count]
            self._used += count
            data = data[count:]
            if self._used == until_aligned:
                self.flush()

    @property
    def path(self) -> str:
        """The file."""
        return str(self._path)

    @property
    def ended(self) -> bool:
        """Whether writing has ended, by trouble or by `finish`."""
        return self._file is None

    def read_into(self, view: memoryview, at: int) -> int:
        """Read what is in the file already; return how many bytes."""
        return os.preadv(self._file.fileno(), [view], at)

    def finish(self) -> dict[str, Any] | None:
        """Write the rest, to the disk itself; return the facts about the file, None where writing had ended."""
        self.flush()
        if self._file is None:
            return None
        os.fsync(self._file.fileno())
        self.close()
        return {
            "file": self._path.name,
            "bytes": self.size_bytes,
            "replies": self.replies,
            "digest": self._digest.hexdigest(),
        }

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def flush(self) -> None:
        """Write what is held back."""
        if self._file is None or not self._used:
            return
        piece, self._used = memoryview(self._buffer)[: self._used], 0
        try:
            if not self._take_room(len(piece)):
                log.info("result not spooled", reason="it does not fit into the spool")
                self.close()
                return
            self.size_bytes += len(piece)
            while piece:
                written = self._file.write(piece)
                self._digest.update(piece[:written])
                piece = piece[written:]
        except OSError as failure:
            log.warning("result not spooled", reason=str(failure))
            self.close()


class Recorder:
    """A reader that leaves a copy of all it receives in a sink."""

    def __init__(self, reader: Reader, sink: SpoolSink) -> None:
        self._reader = reader
        self._sink = sink
        self.name = reader.name

    def send(self, request: Request) -> None:
        """Send a request."""
        self._reader.send(request)
        self._sink.replies += 1

    def receive(self, view: memoryview) -> int:
        """Receive, and write what came."""
        count = self._reader.receive(view)
        self._sink.write(view[:count])
        return count

    def release(self) -> None:
        """Give the connection back to libpq."""
        self._reader.release()

    def close(self) -> None:
        """Drop the reader."""
        self._reader.close()


class FileReader:
    """Reads a file of replies as if they came from PostgreSQL."""

    name = "spool"

    def __init__(self, file: Any) -> None:
        self._file = file

    def send(self, request: Request) -> None:
        """Ask for nothing: the replies are there."""

    def receive(self, view: memoryview) -> int:
        """Read as much as fits."""
        count: int = self._file.readinto(view)
        if count == 0:
            raise ConnectionLostError("the spooled result ends in the middle of a reply")
        return count

    def release(self) -> None:
        """Do nothing: the entry closes its files."""

    def close(self) -> None:
        """Do nothing, as above."""
