"""The reader that always works: libpq reads, and the message framing it took off is put back.

Slow (one Python object per row) but free of assumptions: GSSAPI encryption, platforms without /proc, and any
connection whose socket is not a plain one.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator

import psycopg
from psycopg import pq

from kernels.errors import ConnectionLostError
from transport.messages import Request, message
from transport.readiness import wait_for

WAIT_S = 0.1
FIELD_CODES = {
    b"S": pq.DiagnosticField.SEVERITY,
    b"C": pq.DiagnosticField.SQLSTATE,
    b"M": pq.DiagnosticField.MESSAGE_PRIMARY,
    b"D": pq.DiagnosticField.MESSAGE_DETAIL,
    b"H": pq.DiagnosticField.MESSAGE_HINT,
    b"P": pq.DiagnosticField.STATEMENT_POSITION,
}
TRANSACTION_LETTERS = {
    pq.TransactionStatus.IDLE: b"I",
    pq.TransactionStatus.INTRANS: b"T",
    pq.TransactionStatus.INERROR: b"E",
}


class LibpqReader:
    """Reads through PQgetCopyData or single-row results, and restores the messages of the protocol."""

    name = "libpq"

    def __init__(self, connection: psycopg.Connection[object]) -> None:
        self._pgconn = connection.pgconn
        self._pending = b""
        self._messages: Iterator[bytes] = iter(())
        self._waiting: deque[Request] = deque()
        self._busy = False

    def send(self, request: Request) -> None:
        """Hand the request to libpq, at once or when the replies before it have ended."""
        if self._busy:
            self._waiting.append(request)
        else:
            self._start(request)

    def _start(self, request: Request) -> None:
        try:
            if request.copy:
                self._pgconn.send_query(request.sql.encode())
            else:
                values = [None if value is None else value.encode() for value in request.parameters]
                self._pgconn.send_query_params(request.sql.encode(), values, result_format=pq.Format.BINARY)
                self._pgconn.set_single_row_mode()
            while self._pgconn.flush():
                wait_for(self._pgconn.socket, WAIT_S, read=False, write=True)
        except psycopg.Error as failure:
            raise ConnectionLostError(f"PostgreSQL did not take the request: {failure}") from failure
        self._busy = True
        self._messages = self._reply()

    def receive(self, view: memoryview) -> int:
        """Fill `view` with whole and partial messages, as a socket would."""
        done = 0
        try:
            while done < len(view):
                if not self._pending:
                    self._pending = self._next_message()
                    if not self._pending:
                        break
                count = min(len(self._pending), len(view) - done)
                view[done : done + count] = self._pending[:count]
                self._pending = self._pending[count:]
                done += count
        except psycopg.Error as failure:
            raise ConnectionLostError(f"PostgreSQL closed the connection: {failure}") from failure
        return done

    def release(self) -> None:
        """Nothing was taken, so nothing is given back."""

    def close(self) -> None:
        """Nothing is held."""

    def _next_message(self) -> bytes:
        """Return the next message, of the next request's reply where one has ended; empty to wait."""
        message_bytes = next(self._messages, None)
        if message_bytes is None:
            self._busy = False
            if self._waiting:
                self._start(self._waiting.popleft())
            return b""
        return message_bytes

    def _reply(self) -> Iterator[bytes]:
        """Yield the reply message by message; an empty one where PostgreSQL makes us wait."""
        while True:
            while self._pgconn.is_busy():
                yield from self._wait()
            result = self._pgconn.get_result()
            if result is None:
                break
            if result.status == pq.ExecStatus.COPY_OUT:
                yield message(b"H", struct.pack("!bh", 1, 0))
                yield from self._copy_data()
            elif result.status == pq.ExecStatus.SINGLE_TUPLE:
                yield message(b"D", _data_row(result))
            elif result.status in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
                yield message(b"C", (result.command_status or b"") + b"\0")
            else:
                yield message(b"E", _error_fields(result))
        encoding = self._pgconn.parameter_status(b"client_encoding") or b""
        yield message(b"S", b"client_encoding\0" + encoding + b"\0")
        letter = TRANSACTION_LETTERS.get(pq.TransactionStatus(self._pgconn.transaction_status))
        if letter is None:
            raise ConnectionLostError("PostgreSQL closed the connection in the middle of a reply")
        yield message(b"Z", letter)

    def _copy_data(self) -> Iterator[bytes]:
        while True:
            size, data = self._pgconn.get_copy_data(1)
            if size > 0:
                yield message(b"d", bytes(data))
            elif size == 0:
                yield from self._wait()
            else:
                yield message(b"c", b"")
                return

    def _wait(self) -> Iterator[bytes]:
        """Wait for input once; an empty message lets the caller look whether it is still wanted."""
        if wait_for(self._pgconn.socket, WAIT_S):
            self._pgconn.consume_input()
        else:
            yield b""


def _data_row(result: pq.abc.PGresult) -> bytes:
    parts = [struct.pack("!h", result.nfields)]
    for index in range(result.nfields):
        value = result.get_value(0, index)
        parts.append(struct.pack("!i", -1 if value is None else len(value)))
        parts.append(value or b"")
    return b"".join(parts)


def _error_fields(result: pq.abc.PGresult) -> bytes:
    parts = ((code, result.error_field(field)) for code, field in FIELD_CODES.items())
    return b"".join(code + value + b"\0" for code, value in parts if value) + b"\0"
