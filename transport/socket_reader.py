"""Read PostgreSQL's reply from the socket itself, in few large pieces.

libpq is given its connection back exactly as it was: the duplicated descriptor shares file status and socket
options with libpq's own, so O_NONBLOCK is left alone (all waiting is done by poll) and SO_RCVLOWAT is restored.
"""

from __future__ import annotations

import select
import socket
import time

import psycopg

from kernels.errors import ConnectionLostError
from transport import libpq
from transport.messages import Request
from transport.readiness import wait_for

IDLE_WAIT_MS = 100
"""How long to wait for the first byte before the caller may look whether it is still wanted."""
BULK_WAIT_MS = 8
"""How long to wait for a low-water mark's worth once data flows: what is there is taken after that."""
LOW_WATER_BYTES = 512 << 10
"""Wake up once for this much instead of once per 8 KiB that PostgreSQL writes: the wake-ups, in lock step with
the backend's writes, cost a third of the wall time."""
BULK_AFTER_BYTES = 256 << 10
"""A reply is bulk once it has sent this much; short replies never wait for the low-water mark."""
UNIX_PAUSE_S = 0.0003
"""Unix sockets ignore the low-water mark: pause so that PostgreSQL fills the socket meanwhile."""


class SocketReader:
    """What TCP and Unix sockets have in common."""

    name = "socket"

    def __init__(self, connection: psycopg.Connection[object]) -> None:
        self._socket = libpq.duplicate_socket(connection)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._received = 0

    def send(self, request: Request) -> None:
        """Send the request, waiting for room in the socket as needed."""
        unsent = memoryview(request.encode())
        while unsent:
            try:
                unsent = unsent[self._socket.send(unsent) :]
            except BlockingIOError:
                wait_for(self._socket.fileno(), IDLE_WAIT_MS / 1000, read=False, write=True)
            except OSError as failure:
                raise lost(failure) from failure

    def receive(self, view: memoryview) -> int:
        """Wait for data, then take all that is there and fits."""
        bulk = self._received >= BULK_AFTER_BYTES
        if not self._wait(bulk=bulk):
            return 0
        try:
            count = self._socket.recv_into(view)
        except BlockingIOError:
            self._received = 0
            self._settle()
            return 0
        except OSError as failure:
            raise lost(failure) from failure
        if count == 0:
            raise lost(None)
        self._received += count
        return count

    def release(self) -> None:
        """Restore the socket and drop the duplicate."""
        self._settle()
        self.close()

    def close(self) -> None:
        """Drop the duplicate; the connection's own descriptor stays."""
        self._socket.close()

    def _wait(self, *, bulk: bool) -> bool:
        """Wait until it is worth reading; return whether to try."""
        raise NotImplementedError

    def _settle(self) -> None:
        """Put the socket into the state libpq expects."""


class TcpReader(SocketReader):
    """Reads a TCP socket with a low-water mark: about one system call per half MiB."""

    name = "tcp"

    def __init__(self, connection: psycopg.Connection[object]) -> None:
        super().__init__(connection)
        self._low_water = 1

    def _wait(self, *, bulk: bool) -> bool:
        self._mark(LOW_WATER_BYTES if bulk else 1)
        # In bulk a time-out still means "take what is there": the tail of a reply is below the mark.
        return bool(self._poll.poll(BULK_WAIT_MS if bulk else IDLE_WAIT_MS)) or bulk

    def _settle(self) -> None:
        self._mark(1)

    def _mark(self, size: int) -> None:
        if size != self._low_water:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
            self._low_water = size


class UnixReader(SocketReader):
    """Reads a Unix socket with a short pause before each read."""

    name = "unix"

    def _wait(self, *, bulk: bool) -> bool:
        if not self._poll.poll(IDLE_WAIT_MS):
            return False
        if bulk:
            time.sleep(UNIX_PAUSE_S)
        return True


def lost(cause: OSError | None) -> ConnectionLostError:
    """Make the error for a connection that PostgreSQL, or the network, has closed."""
    detail = f": {cause.strerror or cause}" if cause else ""
    return ConnectionLostError(f"PostgreSQL closed the connection in the middle of a reply{detail}")
