"""``gds``: what PostgreSQL sends goes into a spool file, and what is decoded is read from it."""

from __future__ import annotations

from kernels.errors import ConnectionLostError, OverloadedError
from transport.messages import Request
from transport.modes.collected import Tail
from transport.modes.counters import Counters
from transport.reader import Reader
from transport.spool_files import SpoolSink

CHUNK_BYTES = 1 << 20


class ThroughFile:
    """A reader that gives out nothing before it is in a file, and then reads it from there.

    Parameters
    ----------
    reader : Reader
        The connection's.
    sink : SpoolSink
        The file.
    counters : Counters
    """

    name = "file"

    def __init__(self, reader: Reader, sink: SpoolSink, counters: Counters) -> None:
        self._reader = reader
        self._sink = sink
        self._counters = counters
        self._chunk = memoryview(bytearray(CHUNK_BYTES))
        self._read_at = 0
        self._tail = Tail()
        self._lost: ConnectionLostError | None = None

    def send(self, request: Request) -> None:
        """Send a request."""
        self._reader.send(request)
        self._sink.replies += 1

    @property
    def path(self) -> str:
        """The file."""
        return self._sink.path

    @property
    def written_bytes(self) -> int:
        """Bytes that are in the file."""
        return self._sink.size_bytes

    def write_more(self) -> None:
        """Take what comes; it is in the file at once where a reply may have ended, else with what follows."""
        if self._lost is not None:
            raise self._lost
        self._write()

    def receive(self, view: memoryview) -> int:
        """Write what comes, until it may be the end of a reply; then read it."""
        if self._read_at == self._sink.size_bytes:
            self.write_more()
            return 0
        count = self._sink.read_into(view, self._read_at)
        self._read_at += count
        self._counters.read_bytes += count
        return count

    def release(self) -> None:
        """Give the connection back to libpq."""
        self._reader.release()

    def close(self) -> None:
        """Drop the reader."""
        self._reader.close()

    def _write(self) -> None:
        """Take one chunk; the file holds all of them when a reply may have ended, or the connection has."""
        try:
            count = self._reader.receive(self._chunk)
        except ConnectionLostError as failure:
            self._lost = failure
            self._sink.flush()
            return
        received = self._chunk[:count]
        if count:
            self._sink.write(received)
            self._tail.add(received)
            self._counters.written_bytes += count
        if self._tail.may_be_end:
            self._tail = Tail()
            self._sink.flush()
        if self._sink.ended:
            raise OverloadedError(
                "transport=gds: the result does not fit into the spool (settings spool_max_mib, "
                "spool_min_free_mib): read with transport=pinned, which needs no file"
            )
