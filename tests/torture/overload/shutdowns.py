"""SIGTERM, again and again, with clients that do nothing, that read, and that have stopped reading."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from subprocess import TimeoutExpired

import pyarrow as pa
from pyarrow import flight

from demo.postgres import EmbeddedPostgres
from tests.helpers.server import ServerProcess
from tests.torture.overload.calls import ENDLESS

GRACE_S = 1.0
SPARE_S = 2.0
PATIENCE_S = 30.0
CLIENTS = ("idle", "streaming", "stalled", "all of them")


@dataclass(frozen=True)
class Shutdown:
    """One end of a server: with which clients, how long it took, and its exit status (None: it did not end)."""

    clients: str
    seconds: float
    status: int | None

    @property
    def in_time(self) -> bool:
        """Whether the server ended within its grace and two seconds."""
        return self.status is not None and self.seconds <= GRACE_S + SPARE_S


def shut_down(postgres: EmbeddedPostgres, clients: str) -> Shutdown:
    """Start a server, let clients come, and tell it to stop."""
    with ServerProcess(postgres.dsn(), "--drain-grace-s", str(GRACE_S)) as server, _clients(server.uri, clients):
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        try:
            status: int | None = server.wait(PATIENCE_S)
        except TimeoutExpired:
            server.signal(signal.SIGKILL)
            status = None
        return Shutdown(clients, time.monotonic() - began, status)


@contextmanager
def _clients(uri: str, wanted: str) -> Iterator[None]:
    with ExitStack() as stack:
        for name in CLIENTS[:-1] if wanted == CLIENTS[-1] else [wanted]:
            client = stack.enter_context(flight.connect(uri))
            list(client.do_action(flight.Action("info", b"")))
            if name == "idle":
                continue
            reader = client.do_get(ENDLESS)
            reader.read_chunk()
            if name == "streaming":
                thread = threading.Thread(target=_read_on, args=(reader,))
                thread.start()
                stack.callback(thread.join)
        yield


def _read_on(reader: flight.FlightStreamReader) -> None:
    with suppress(pa.ArrowException, OSError):  # the server's end is theirs
        for _ in reader:
            pass
