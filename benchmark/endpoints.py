"""pgflight by endpoints: one GetFlightInfo, then a DoGet for each endpoint, each by a process of its own.

The processes are those of a distributed reader: ``python -m benchmark.endpoints URI``.  They take tickets in base64
on stdin, line by line, and answer each with the number of its rows.  They start, and connect once, before the clock.
"""

from __future__ import annotations

import atexit
import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache

import pyarrow as pa
from google.protobuf.wrappers_pb2 import BytesValue
from pyarrow import flight

from benchmark.target import Drained, Target
from demo.server import ROOT

CANCEL = "CancelFlightInfo"


class EndpointError(RuntimeError):
    """A reading process failed; the message ends with the last line that it wrote."""


def read(target: Target) -> Iterator[Drained]:
    """As many endpoints as there are streams, one stream each, all read at once."""
    readers = _readers(target.uri, target.streams)
    command = {"sql": target.sql, "options": {"endpoints": target.streams, "streams": 1}}
    with flight.connect(target.uri) as client:
        info = client.get_flight_info(flight.FlightDescriptor.for_command(json.dumps(command).encode()))
        # A small table has fewer endpoints than were asked for.
        busy = readers[: len(info.endpoints)]
        try:
            for reader, endpoint in zip(busy, info.endpoints, strict=True):
                reader.ask(endpoint.ticket.ticket)
            for reader in busy:
                yield Drained(reader.answer())
        finally:
            # What holds a snapshot for endpoints is told that nobody will read them again.
            body = BytesValue(value=info.serialize()).SerializeToString()
            list(client.do_action(flight.Action(CANCEL, body)))


class Reader:
    """A process that reads endpoints, until `close`, or until its stdin is closed because this process has died."""

    def __init__(self, uri: str) -> None:
        command = [sys.executable, "-W", "ignore", "-m", "benchmark.endpoints", uri]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=ROOT)

    def ask(self, ticket: bytes) -> None:
        """Have it read an endpoint."""
        assert self._process.stdin is not None  # noqa: S101 - asked for above
        self._process.stdin.write(base64.b64encode(ticket).decode() + "\n")
        self._process.stdin.flush()

    def answer(self) -> int:
        """Return the rows of the endpoint it was asked for; 0 once it has started.

        Raises
        ------
        EndpointError
            It has failed.
        """
        assert self._process.stdout is not None  # noqa: S101 - asked for above
        line = self._process.stdout.readline()
        if not line:
            said = self._process.communicate()[1].strip().rpartition("\n")[2]
            raise EndpointError(f"a reading process ended: {said}")
        return int(line)

    def close(self) -> None:
        """Let it end."""
        self._process.communicate()


@cache
def _readers(uri: str, count: int) -> list[Reader]:
    """Start the processes; they serve every read of this one."""
    readers = [Reader(uri) for _ in range(count)]
    for reader in readers:
        atexit.register(reader.close)
        reader.answer()
    return readers


def main(uri: str) -> None:
    """Read endpoints until stdin ends."""
    with flight.connect(uri) as client:
        list(client.list_actions())  # the first call of a process starts gRPC
    _answer(0)
    for line in sys.stdin:
        ticket = flight.Ticket(base64.b64decode(line))
        try:
            with flight.connect(uri) as client:
                rows = sum(chunk.data.num_rows for chunk in client.do_get(ticket))
        except (flight.FlightError, pa.ArrowException) as failure:
            sys.exit(" ".join(str(failure).split()))
        _answer(rows)


def _answer(rows: int) -> None:
    sys.stdout.write(f"{rows}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
