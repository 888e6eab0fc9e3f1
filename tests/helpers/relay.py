"""A TCP relay that counts what a server sends."""

from __future__ import annotations

import socket
import socketserver
import threading
from typing import Self
from urllib.parse import urlsplit


class Relay(socketserver.ThreadingTCPServer):
    """Passes connections on to a server, and counts the bytes that come back.

    Parameters
    ----------
    uri : str
    """

    daemon_threads = True

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        self.target = (parts.hostname, parts.port)
        self.received = 0
        super().__init__(("127.0.0.1", 0), _Passing)
        self.uri = f"grpc://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Passing(socketserver.BaseRequestHandler):
    server: Relay
    request: socket.socket

    def handle(self) -> None:
        with socket.create_connection(self.server.target) as there:
            back = threading.Thread(target=self._back, args=(there,))
            back.start()
            while data := self.request.recv(1 << 16):
                there.sendall(data)
            there.shutdown(socket.SHUT_WR)
            back.join()

    def _back(self, there: socket.socket) -> None:
        try:
            while data := there.recv(1 << 16):
                self.server.received += len(data)
                self.request.sendall(data)
        except OSError:  # the client has gone first
            return
