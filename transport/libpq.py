"""What psycopg does not expose of the libpq it has loaded: TLS object, GSS state, the socket itself."""

from __future__ import annotations

import ctypes
import functools
import os
import re
import socket
from pathlib import Path

import psycopg
from psycopg.pq import abc

MAPS = Path("/proc/self/maps")
SOCKADDR_BYTES = 16
"""Size of a struct sockaddr; all zero, its family is AF_UNSPEC."""


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the libpq that this process has mapped, and none other.

    None where it cannot be told (no /proc, or two of them): the fallback reader then serves.
    """
    if not MAPS.exists():
        return None
    paths = {"/" + line.partition("/")[2] for line in MAPS.read_text().splitlines() if "/" in line}
    found = [path for path in paths if re.match(r"libpq[-.].*so", path.rsplit("/", 1)[-1])]
    return ctypes.CDLL(found[0]) if len(found) == 1 else None


def openssl() -> ctypes.CDLL | None:
    """Return the OpenSSL that this libpq uses, or None.

    Its functions are looked up through libpq's handle, which searches libpq's own dependencies: the process may
    have mapped a second OpenSSL, Python's, and that must never touch libpq's objects.
    """
    libpq = library()
    if libpq is None or not hasattr(libpq, "SSL_read"):
        return None
    libpq.SSL_read.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
    libpq.SSL_write.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
    libpq.SSL_get_error.argtypes = [ctypes.c_void_p, ctypes.c_int]
    return libpq


def gss_encrypted(connection: psycopg.Connection[object]) -> bool:
    """Tell whether the connection is encrypted by GSSAPI: its raw bytes are then of no use."""
    libpq = library()
    if libpq is None or not hasattr(libpq, "PQgssEncInUse"):
        return False
    libpq.PQgssEncInUse.argtypes = [ctypes.c_void_p]
    return bool(libpq.PQgssEncInUse(_pointer(connection.pgconn)))


def ssl_pointer(connection: psycopg.Connection[object]) -> int | None:
    """Return the address of the connection's ``SSL`` object, None without OpenSSL."""
    libpq = library()
    if libpq is None or openssl() is None:
        return None
    libpq.PQsslStruct.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    libpq.PQsslStruct.restype = ctypes.c_void_p
    pointer: int | None = libpq.PQsslStruct(_pointer(connection.pgconn), b"OpenSSL")
    return pointer


def duplicate_socket(connection: psycopg.Connection[object]) -> socket.socket:
    """Return a second descriptor of the connection's socket; file status and options are shared."""
    return socket.socket(fileno=os.dup(connection.pgconn.socket))


def socket_family(connection: psycopg.Connection[object]) -> int:
    """Return the address family of the connection's socket."""
    with duplicate_socket(connection) as twin:
        return twin.family


def destroy(connection: psycopg.Connection[object]) -> None:
    """End a connection whose reply was not read: PostgreSQL notices at once.

    PQfinish alone would wait for nothing but leave the backend writing while any duplicate of the socket is
    open; a shutdown ends the conversation whoever holds a descriptor.
    """
    hang_up(connection)
    connection.close()


def hang_up(connection: psycopg.Connection[object]) -> None:
    """End the conversation with PostgreSQL; the connection itself is closed by whoever uses it.

    May be called while another thread reads, but not while one closes the connection.  A shutdown is not enough
    for TCP: a backend that waits for room in our full receive buffer would not notice.  Dissolving the association
    (connect(2) to AF_UNSPEC) resets the connection at once, however many descriptors it has.
    """
    if connection.closed:
        return
    with duplicate_socket(connection) as twin:
        try:
            twin.shutdown(socket.SHUT_RDWR)
        except OSError as failure:  # already disconnected by the other side: nothing left to end
            if failure.errno is None:
                raise
        if twin.family != socket.AF_UNIX:
            unspecified = ctypes.create_string_buffer(SOCKADDR_BYTES)
            ctypes.CDLL(None).connect(twin.fileno(), unspecified, SOCKADDR_BYTES)


def _pointer(pgconn: abc.PGconn) -> int:
    return int(getattr(pgconn, "pgconn_ptr", 0) or 0)  # in every implementation, not in the protocol
