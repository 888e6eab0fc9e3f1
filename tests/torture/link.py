"""A TCP link that can be broken: cut, half closed, slowed down, or made to change a byte."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable
from typing import Self

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no time to linger: closing sends RST."""


class Link(socketserver.ThreadingTCPServer):
    """Passes connections on to a server, until it is told otherwise.

    Parameters
    ----------
    host, port
        The server's.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        self.delay_s = 0.0
        """How long each piece that the server sends is held up."""
        self._lock = threading.Lock()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self.sent = 0
        """Bytes that came from the server."""
        self._trigger: tuple[int, Callable[[], None]] | None = None
        self._corrupt_next = False
        super().__init__(("127.0.0.1", 0), _Passing)
        self.port = self.server_address[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.shutdown()
        self.cut()
        self.server_close()

    def at(self, offset: int, action: Callable[[], None]) -> None:
        """Do something once so many more bytes have come from the server."""
        with self._lock:
            self._trigger = (self.sent + offset, action)

    def heal(self) -> None:
        """Pass everything on again."""
        with self._lock:
            self._trigger, self._corrupt_next, self.delay_s = None, False, 0.0

    def cut(self) -> None:
        """Reset all connections, on both sides."""
        for pair in self._open():
            for end in pair:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    end.shutdown(socket.SHUT_RDWR)

    def half_close(self) -> None:
        """Tell the clients that the server sends no more; what they send still goes there."""
        for here, _ in self._open():
            with contextlib.suppress(OSError):
                here.shutdown(socket.SHUT_WR)

    def corrupt(self) -> None:
        """Change a byte of what comes from the server next."""
        self._corrupt_next = True

    def passed(self, data: bytes) -> bytes:
        """Count what the server sent, and return what the client gets of it."""
        with self._lock:
            self.sent += len(data)
            due = self._trigger is not None and self.sent >= self._trigger[0]
            action = self._trigger[1] if self._trigger is not None and due else None
            if due:
                self._trigger = None
        if action is not None:
            action()
        if self._corrupt_next:
            self._corrupt_next = False
            middle = len(data) // 2
            data = data[:middle] + bytes([data[middle] ^ 0x55]) + data[middle + 1 :]
        if self.delay_s:
            time.sleep(self.delay_s)
        return data

    def joined(self, here: socket.socket, there: socket.socket) -> None:
        """Take note of a connection."""
        with self._lock:
            self._pairs.add((here, there))

    def parted(self, here: socket.socket, there: socket.socket) -> None:
        """Forget a connection."""
        with self._lock:
            self._pairs.discard((here, there))

    def _open(self) -> list[tuple[socket.socket, socket.socket]]:
        with self._lock:
            return list(self._pairs)


class _Passing(socketserver.BaseRequestHandler):
    server: Link
    request: socket.socket

    def handle(self) -> None:
        try:
            there = socket.create_connection(self.server.target)
        except OSError:  # the server is not there: the client sees a connection that ends
            return
        with there:
            self.server.joined(self.request, there)
            back = threading.Thread(target=self._back, args=(there,), daemon=True)
            back.start()
            with contextlib.suppress(OSError):
                while data := self.request.recv(1 << 16):
                    there.sendall(data)
            with contextlib.suppress(OSError):
                there.shutdown(socket.SHUT_WR)
            back.join()
            self.server.parted(self.request, there)

    def _back(self, there: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := there.recv(1 << 16):
                self.request.sendall(self.server.passed(data))
        with contextlib.suppress(OSError):
            self.request.shutdown(socket.SHUT_WR)
