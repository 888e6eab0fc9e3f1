"""Sends broken payloads to a server: typed errors come back, no traceback, and the server goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice

import pyarrow as pa
from pyarrow import flight

from demo.postgres import EmbeddedPostgres
from tests.helpers.server import ServerProcess
from tests.torture.fuzz_wire.parsers import headers_of
from tests.torture.fuzz_wire.run import Findings, payload
from tests.torture.fuzz_wire.seeds import Seed, seeds

CALL_TIMEOUT_S = 30.0
FLAGS = ("--statement-timeout-s", "2", "--lock-timeout-s", "2", "--connection-wait-s", "10", "--allow-writes")
LEAKS = ("Traceback", "internal error", 'File "', ".py:", "Deadline Exceeded")
"""Texts that must not reach a client; the last is its own, where the server did not answer."""
BATCHES = 3

Call = Callable[[flight.FlightClient, Seed, bytes], object]


@contextmanager
def fuzzed_server() -> Iterator[ServerProcess]:
    """Serve a database of its own, as a role that may do no harm to anything but it."""
    with EmbeddedPostgres.start() as postgres:
        with postgres.connect() as connection:
            connection.execute(
                "create table fuzzed as select g as id, g::text as text from generate_series(1, 1000) g"
            )
        with ServerProcess(postgres.dsn(), *FLAGS) as server:
            yield server


def assault(server: ServerProcess, count: int, seed: int) -> Findings:
    """Send so many broken payloads; whatever is not as it should be is in the findings."""
    found, sound = Findings(), seeds()
    with flight.connect(server.uri) as client:
        for number in range(count):
            chosen, raw = payload(seed, number, sound)
            for call in CALLS[chosen.kind]:
                found.kinds[chosen.kind] += 1
                outcome, text = _answered(client, call, chosen, raw)
                found.outcomes[outcome] += 1
                if outcome not in TYPED or any(leak in text for leak in LEAKS):
                    found.bad.setdefault(f"{outcome}: {text[:300]}", f"{chosen.kind} {chosen.name}: {raw[:300]!r}")
            if server.returncode is not None:
                found.bad[f"the server ended with {server.returncode}"] = repr(raw[:300])
                return found
    found.bad.update({str(line)[:600]: "log" for line in server.log if line.get("level") in (None, "error")})
    return found


TYPED = {"sound"} | {
    kind.__name__
    for kind in (
        pa.ArrowInvalid, pa.ArrowKeyError, pa.ArrowNotImplementedError, flight.FlightUnauthenticatedError,
        flight.FlightUnauthorizedError, flight.FlightTimedOutError, flight.FlightUnavailableError,
        flight.FlightServerError,
    )
}  # fmt: skip


def _answered(client: flight.FlightClient, call: Call, seed: Seed, raw: bytes) -> tuple[str, str]:
    try:
        call(client, seed, raw)
    except Exception as failure:  # whatever it is, it is what the client got
        return type(failure).__name__, str(failure)
    return "sound", ""


def _options(headers: dict[str, list[str | bytes]] | None = None) -> flight.FlightCallOptions:
    pairs = [
        (name.encode(), value if isinstance(value, bytes) else value.encode())
        for name, values in (headers or {}).items()
        for value in values
        if _may_travel(name, value)
    ]
    return flight.FlightCallOptions(timeout=CALL_TIMEOUT_S, headers=pairs)


def _may_travel(name: str, value: str | bytes) -> bool:
    """Tell whether gRPC's client sends a header at all."""
    sendable = name.replace("-", "").replace("_", "").isalnum() and name.isascii() and not name.startswith("grpc-")
    return sendable and (isinstance(value, bytes) or (value.isprintable() and len(value) < 4000))


def _read(client: flight.FlightClient, ticket: bytes) -> None:
    reader = client.do_get(flight.Ticket(ticket), _options())
    for _ in islice(reader, BATCHES):
        pass
    reader.cancel()


def _path(client: flight.FlightClient, _seed: Seed, raw: bytes) -> object:
    parts = [part.decode("utf-8", "replace") for part in raw.split(b'"')[1::2]]
    return client.get_flight_info(flight.FlightDescriptor.for_path(*parts), _options())


def _plan(client: flight.FlightClient, _seed: Seed, raw: bytes) -> object:
    return client.get_flight_info(flight.FlightDescriptor.for_command(raw), _options())


def _get(client: flight.FlightClient, _seed: Seed, raw: bytes) -> None:
    _read(client, raw)


def _put(client: flight.FlightClient, _seed: Seed, raw: bytes) -> None:
    batch = pa.record_batch({"a": [1]})
    writer, _ = client.do_put(flight.FlightDescriptor.for_command(raw), batch.schema, _options())
    with writer:
        writer.write_batch(batch)
        writer.done_writing()


def _act(client: flight.FlightClient, seed: Seed, raw: bytes) -> object:
    return list(client.do_action(flight.Action(seed.name, raw), _options()))


def _ask(client: flight.FlightClient, _seed: Seed, raw: bytes) -> object:
    return client.get_flight_info(flight.FlightDescriptor.for_command(b"select 1"), _options(headers_of(raw)))


CALLS: dict[str, tuple[Call, ...]] = {
    "request": (_plan, _get), "path": (_path,), "headers": (_ask,), "ticket": (_get,), "any": (_plan, _get, _put),
    "action": (_act,),
}  # fmt: skip
