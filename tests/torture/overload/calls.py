"""Calls to a server whose connections are all in use: how long each takes, and how it ends."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from pyarrow import flight

from flight_sql import pack
from flight_sql.proto import flight_sql_pb2 as pb
from tests.helpers.server import ServerProcess
from tests.helpers.waiting import eventually

CONNECTIONS, RESERVED, WAITING = 4, 1, 2
FLAGS = (
    "--max-connections", str(CONNECTIONS), "--reserved-connections", str(RESERVED), "--max-waiting", str(WAITING), "--connection-wait-s", "600",
    "--stall-timeout-s", "0", "--http-listen", "0",
)  # fmt: skip
ENDLESS = flight.Ticket(b"select generate_series(1, 1000000000) as g, repeat('x', 1000) as t")
SHORT = flight.Ticket(b"select 1 as a")

REFUSED = "refused"

Call = Callable[[flight.FlightClient], object]


@dataclass
class Timed:
    """Calls of one kind."""

    name: str
    seconds: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)

    def percentile_ms(self, share: float) -> float:
        """Return how long so many of them took at most, in milliseconds."""
        return float(np.percentile(self.seconds, share)) * 1000


def _sql(command: object) -> Call:
    raw = pack(command)
    return lambda client: client.do_get(flight.Ticket(raw)).read_all()


METADATA: dict[str, Call] = {
    "info": lambda client: list(client.do_action(flight.Action("info", b""))),
    "actions": lambda client: client.list_actions(),
    "table types": _sql(pb.CommandGetTableTypes()),
    "schema of a metadata command": lambda client: client.get_schema(
        flight.FlightDescriptor.for_command(pack(pb.CommandGetTables()))
    ),
    "plan of a statement": lambda client: client.get_flight_info(flight.FlightDescriptor.for_command(b"select 1")),
    "schema of a statement": lambda client: client.get_schema(flight.FlightDescriptor.for_command(b"select 1")),
    "tables": _sql(pb.CommandGetTables()),
    "flights": lambda client: list(client.list_flights()),
}
READS: dict[str, Call] = {"read": lambda client: client.do_get(SHORT).read_all()}


@contextmanager
def full(server: ServerProcess, waiting: Callable[[], float]) -> Iterator[None]:
    """Use all connections that reads may have, by some that do not go on, and let as many wait as may."""
    with ExitStack() as stack:
        client = stack.enter_context(flight.connect(server.uri))
        for _ in range(CONNECTIONS - RESERVED):
            reader = client.do_get(ENDLESS)
            reader.read_chunk()
            stack.callback(reader.cancel)
        threads = [threading.Thread(target=_wait_in_line, args=(server.uri,)) for _ in range(WAITING)]
        stack.callback(lambda: [thread.join() for thread in threads])
        for thread in threads:
            thread.start()
        stack.callback(reader.cancel)  # before those who wait are waited for
        eventually(waiting, lambda count: count >= WAITING, deadline_s=30)
        yield


def timed(server: ServerProcess, calls: dict[str, Call], times: int) -> list[Timed]:
    """Make each call so many times."""
    found = []
    with flight.connect(server.uri) as client:
        for name, call in calls.items():
            one = Timed(name)
            for _ in range(times):
                began = time.perf_counter()
                try:
                    call(client)
                    outcome = "answered"
                except (pa.ArrowException, OSError) as failure:
                    # Of ListFlights and GetSchema pyarrow's client forgets the class.
                    outcome = REFUSED if "too many requests wait" in str(failure) else type(failure).__name__
                one.seconds.append(time.perf_counter() - began)
                one.outcomes[outcome] += 1
            found.append(one)
    return found


def _wait_in_line(uri: str) -> None:
    with flight.connect(uri) as client:
        client.do_get(SHORT).read_all()
