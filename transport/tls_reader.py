"""Read the reply through libpq's own TLS session, with the same low-water mark as plain TCP."""

from __future__ import annotations

import ctypes

import psycopg

from kernels.errors import ConnectionLostError
from transport import libpq
from transport.messages import Request
from transport.readiness import wait_for
from transport.socket_reader import BULK_AFTER_BYTES, IDLE_WAIT_MS, TcpReader, lost

SSL_ERROR_WANT_READ = 2
SSL_ERROR_WANT_WRITE = 3


class TlsReader(TcpReader):
    """Calls SSL_read and SSL_write on the connection's SSL object; the socket is only waited for."""

    name = "tls"

    def __init__(self, connection: psycopg.Connection[object]) -> None:
        pointer, openssl = libpq.ssl_pointer(connection), libpq.openssl()
        if pointer is None or openssl is None:
            raise ConnectionLostError("the TLS session of this connection cannot be read directly")
        super().__init__(connection)
        self._ssl = pointer
        self._openssl = openssl

    def send(self, request: Request) -> None:
        """Encrypt and send the request."""
        unsent = request.encode()
        while unsent:
            self._openssl.ERR_clear_error()
            count = self._openssl.SSL_write(self._ssl, unsent, len(unsent))
            if count > 0:
                unsent = unsent[count:]
            elif self._wanted(count) == SSL_ERROR_WANT_WRITE:
                wait_for(self._socket.fileno(), IDLE_WAIT_MS / 1000, read=False, write=True)
            else:
                wait_for(self._socket.fileno(), IDLE_WAIT_MS / 1000)

    def receive(self, view: memoryview) -> int:
        """Decrypt what is there; wait only when the session has nothing left."""
        count = self._drain(view)
        if count == 0:
            if not self._wait(bulk=self._received >= BULK_AFTER_BYTES):
                return 0
            count = self._drain(view)
            if count == 0:
                self._received = 0
        self._received += count
        return count

    def _drain(self, view: memoryview) -> int:
        """Read records until `view` is full or the socket is empty; return the bytes read."""
        base = ctypes.addressof(ctypes.c_char.from_buffer(view))
        done = 0
        while done < len(view):
            self._openssl.ERR_clear_error()  # SSL_get_error looks at this thread's error queue
            count = self._openssl.SSL_read(self._ssl, base + done, min(len(view) - done, 1 << 30))
            if count <= 0:
                if self._wanted(count) in (SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE):
                    break
                raise lost(None)
            done += count
        return done

    def _wanted(self, result: int) -> int:
        code = int(self._openssl.SSL_get_error(self._ssl, result))
        if code not in (SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE):
            raise lost(None)
        return code
