"""How bytes leave a PostgreSQL connection: one interface, and the choice among its four forms."""

from __future__ import annotations

import socket
from typing import Protocol
from weakref import WeakKeyDictionary

import psycopg

from transport import libpq
from transport.libpq_reader import LibpqReader
from transport.messages import Request
from transport.socket_reader import TcpReader, UnixReader
from transport.tls_reader import TlsReader


class Reader(Protocol):
    """Sends one request on an idle connection and reads the raw reply, message framing included."""

    name: str
    """``tcp``, ``unix``, ``tls`` or ``libpq``; shown in the log and by ``info``."""

    def send(self, request: Request) -> None:
        """Take the connection over and send the request."""

    def receive(self, view: memoryview) -> int:
        """Fill the beginning of `view`.

        Returns
        -------
        int
            Bytes received; 0 when nothing came for about 0.1 s.

        Raises
        ------
        ConnectionLostError
            PostgreSQL closed the connection.
        """

    def release(self) -> None:
        """Give the connection back to libpq, in the state it was in.  Only after ReadyForQuery."""

    def close(self) -> None:
        """Drop what the reader holds; the connection itself must then be closed by its owner."""


_fitting: WeakKeyDictionary[psycopg.Connection[object], str] = WeakKeyDictionary()


def reader_name(connection: psycopg.Connection[object]) -> str:
    """Tell which reader fits a connection, without taking it over."""
    name = _fitting.get(connection)
    if name is None:
        name = _fitting[connection] = _find(connection)
    return name


def _find(connection: psycopg.Connection[object]) -> str:
    if libpq.gss_encrypted(connection):
        return LibpqReader.name
    if connection.pgconn.ssl_in_use:
        return TlsReader.name if libpq.ssl_pointer(connection) else LibpqReader.name
    family = libpq.socket_family(connection)
    if family == socket.AF_UNIX:
        return UnixReader.name
    return TcpReader.name if family in (socket.AF_INET, socket.AF_INET6) else LibpqReader.name


def open_reader(connection: psycopg.Connection[object], wanted: str = "auto") -> Reader:
    """Make the reader that fits a connection, or the ``libpq`` fallback where that is asked for."""
    name = reader_name(connection) if wanted == "auto" else wanted
    kinds: dict[str, type[Reader]] = {
        reader.name: reader for reader in (TcpReader, UnixReader, TlsReader, LibpqReader)
    }
    return kinds[name](connection)  # type: ignore[call-arg]
