"""What a transport did to the bytes of a reply, counted where it is done."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from kernels.typing import Allocate, Region
from transport.messages import Request
from transport.reader import Reader


@dataclass(slots=True)
class Counters:
    """What became of the bytes that were received.

    Parameters
    ----------
    chunks : int
        Receives that brought something.
    received_bytes : int
    allocations : int
        Buffers that were taken to hold them.
    copies, copied_bytes : int
        Copies from one host buffer to another.
    device_copies, device_bytes : int
        Copies from the host to a GPU.
    written_bytes, read_bytes : int
        To a file, and from it.
    """

    chunks: int = 0
    received_bytes: int = 0
    allocations: int = 0
    copies: int = 0
    copied_bytes: int = 0
    device_copies: int = 0
    device_bytes: int = 0
    written_bytes: int = 0
    read_bytes: int = 0

    def copied(self, size_bytes: int) -> None:
        """Count a copy within the host's memory."""
        self.copies += 1
        self.copied_bytes += size_bytes

    def uploaded(self, size_bytes: int) -> None:
        """Count a copy to a GPU."""
        self.device_copies += 1
        self.device_bytes += size_bytes

    def counting(self, allocate: Allocate) -> Allocate:
        """Return the same source of memory, with what is taken counted."""

        def counted(size_bytes: int, /) -> Region:
            self.allocations += 1
            return allocate(size_bytes)

        return counted

    def facts(self) -> dict[str, int]:
        """Return what is not zero."""
        counted = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in counted if value}


def total(counted: Iterable[Counters]) -> Counters:
    """Add up the counters of several streams."""
    result = Counters()
    for each in counted:
        for field in fields(Counters):
            setattr(result, field.name, getattr(result, field.name) + getattr(each, field.name))
    return result


class CountedReader:
    """A reader whose receives are counted.

    Parameters
    ----------
    reader : Reader
    counters : Counters
    stored : bool
        It reads a file.
    """

    def __init__(self, reader: Reader, counters: Counters, *, stored: bool = False) -> None:
        self._reader = reader
        self._counters = counters
        self._stored = stored
        self.name = reader.name

    def send(self, request: Request) -> None:
        """Send a request."""
        self._reader.send(request)

    def receive(self, view: memoryview) -> int:
        """Receive, and count."""
        count = self._reader.receive(view)
        self._counters.chunks += count > 0
        self._counters.received_bytes += count
        self._counters.read_bytes += count if self._stored else 0
        return count

    def release(self) -> None:
        """Give the connection back to libpq."""
        self._reader.release()

    def close(self) -> None:
        """Drop the reader."""
        self._reader.close()
