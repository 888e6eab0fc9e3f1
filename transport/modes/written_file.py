"""``file``: PostgreSQL writes rows into a file on this host; they are read from there, then its answer."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from kernels.errors import DecodeError, RequestError
from transport.messages import COMMAND_COMPLETE, ERROR_RESPONSE, Request
from transport.modes.collected import Tail
from transport.modes.counters import Counters
from transport.reader import Reader

COPY_DONE_MESSAGE = b"c\0\0\0\4"
"""Stands for the end of the file, which is read to its last byte."""
PREFIX = "pgflight-"
SUFFIX = ".copy"


def new_path(directory: Path) -> Path:
    """Return a name that nobody can guess."""
    return directory / f"{PREFIX}{secrets.token_hex(16)}{SUFFIX}"


def remove_leftovers(directory: Path) -> None:
    """Remove what an earlier server left; the directory must be this one's alone."""
    for path in directory.glob(f"{PREFIX}*{SUFFIX}"):
        path.unlink(missing_ok=True)


class WrittenFile:
    """A reader of a file that PostgreSQL writes, which gives out the rows before the answer to the command.

    The file is removed as soon as it is open.

    Parameters
    ----------
    reader : Reader
        The connection's.
    path : Path
        Named in the command.
    counters : Counters
    """

    name = "file"

    def __init__(self, reader: Reader, path: Path, counters: Counters) -> None:
        self._reader = reader
        self._path = path
        self._counters = counters
        self._answer = bytearray()
        self._chunk = memoryview(bytearray(1 << 16))
        self._tail = Tail()
        self._file: Any = None
        self._answered = False

    def send(self, request: Request) -> None:
        """Send the command."""
        self._reader.send(request)

    def receive(self, view: memoryview) -> int:
        """Wait for the answer; then read the file, and give out the answer behind it."""
        if not self._answered:
            self._wait()
            return 0
        if self._file is not None:
            count: int = self._file.readinto(view)
            if count:
                self._counters.read_bytes += count
                return count
            self._file.close()
            self._file = None
            self._answer[:0] = COPY_DONE_MESSAGE
        count = min(len(view), len(self._answer))
        if count == 0:
            raise DecodeError("PostgreSQL's answer to COPY ended in the middle")
        view[:count] = self._answer[:count]
        del self._answer[:count]
        return count

    def release(self) -> None:
        """Give the connection back to libpq."""
        self.discard()
        self._reader.release()

    def close(self) -> None:
        """Drop the reader; PostgreSQL may still be writing."""
        self.discard()
        self._reader.close()

    def discard(self) -> None:
        """Close and remove the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._path.unlink(missing_ok=True)

    def _wait(self) -> None:
        count = self._reader.receive(self._chunk)
        self._answer += self._chunk[:count]
        self._tail.add(self._chunk[:count])
        if not self._tail.may_be_end:
            return
        self._answered = True
        if _succeeded(bytes(self._answer)):
            self._open()

    def _open(self) -> None:
        try:
            self._file = self._path.open("rb", buffering=0)
            self._counters.written_bytes += self._path.stat().st_size
            self._path.unlink()
        except OSError as failure:
            raise RequestError(
                f"transport=file: the server cannot take {self._path} over ({failure.strerror}): PostgreSQL must "
                "run on this host, and its system user share the directory with the server's (setting file_dir)"
            ) from failure


def _succeeded(answer: bytes) -> bool:
    """Walk the messages; tell whether CommandComplete is among them, and no error."""
    kinds, at = set(), 0
    while at + 5 <= len(answer):
        kinds.add(answer[at])
        at += 1 + int.from_bytes(answer[at + 1 : at + 5], "big")
    return COMMAND_COMPLETE in kinds and ERROR_RESPONSE not in kinds
