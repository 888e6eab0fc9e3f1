"""A process of greedy clients: ``python -m tests.torture.memory.clients URI CLIENTS SECONDS SEED``.

Each has a connection of its own, reads what is large, now and then slowly, and tries again when it is refused.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections import Counter

import pyarrow as pa
from pyarrow import flight

ROWS = 20_000
READS = (
    {"sql": f"select g, repeat('x', 2000) as t from generate_series(1, {ROWS}) g"},
    {
        "sql": f"select g, repeat('x', 2000) as t from generate_series(1, {ROWS}) g",
        "options": {"batch_bytes": 16 << 20},
    },
    {"sql": f"select g, g::text as t, g * 0.5::float8 as f, now() as n from generate_series(1, {ROWS}) g"},
    {"sql": f"select g, repeat('x', 4000000) as t from generate_series(1, {ROWS // 1000}) g"},
)
REFUSED = (flight.FlightUnavailableError, flight.FlightTimedOutError)
PAUSE_S = 0.2
SLOW_SHARE = 0.3


def read(client: flight.FlightClient, source: random.Random) -> str:
    """Read something large; return how it ended."""
    asked = source.choice(READS)
    wanted = ROWS // 1000 if asked is READS[-1] else ROWS
    slow = source.random() < SLOW_SHARE
    try:
        rows = 0
        for chunk in client.do_get(flight.Ticket(json.dumps(asked).encode())):
            rows += chunk.data.num_rows
            if slow:
                time.sleep(PAUSE_S)  # a client on a slow network
    except REFUSED:
        return "refused"
    except pa.ArrowException as failure:
        return f"{type(failure).__name__}: {failure}"[:200]
    return "complete" if rows == wanted else f"WRONG: {rows} rows of {wanted}"


def run(uri: str, seed: int, end: float, told: Counter[str], lock: threading.Lock) -> None:
    """Read until it is time to stop."""
    source = random.Random(seed)
    with flight.connect(uri, generic_options=[("grpc.use_local_subchannel_pool", 1)]) as client:
        while time.monotonic() < end:
            outcome = read(client, source)
            with lock:
                told[outcome] += 1
            if outcome == "refused":
                time.sleep(PAUSE_S)  # as a client that has been told to try again


def main(uri: str, clients: str, seconds: str, seed: str) -> None:
    told: Counter[str] = Counter()
    lock, end = threading.Lock(), time.monotonic() + float(seconds)
    threads = [
        threading.Thread(target=run, args=(uri, int(seed) * 1000 + number, end, told, lock))
        for number in range(int(clients))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
