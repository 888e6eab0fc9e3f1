"""A Flight server over tables in memory that keeps to pgflight's wire contract; run as a script."""

import argparse
import json
import re
import threading
import time
from pathlib import Path

import pyarrow as pa
from pyarrow import flight

NUMBERS = pa.schema([("n", pa.int64()), ("text", pa.utf8())])
BATCHES, BATCH_ROWS = 10, 1000
KNOWN_OPTIONS = {"endpoints", "locations", "schema_change", "profile", "streams", "limit"}


def number_batch(index):
    values = range(index * BATCH_ROWS, (index + 1) * BATCH_ROWS)
    return pa.table([pa.array(values, pa.int64()), pa.array([f"row {n}" for n in values])], schema=NUMBERS)


class Server(flight.FlightServerBase):
    def __init__(self, uri, token, **options):
        middleware = {"auth": BearerAuth(token)} if token else None
        super().__init__(uri, middleware=middleware, **options)
        self.lock = threading.Lock()
        self.counts = {"planned": 0, "started": 0, "finished": 0, "broken_off": 0}
        self.types = {}

    def list_flights(self, context, criteria):
        pattern = re.escape(criteria.decode() or "%").replace("%", ".*")
        for name, rows in [("numbers", BATCHES * BATCH_ROWS), ("stalls", -1)]:
            if re.fullmatch(pattern, f"public.{name}"):
                descriptor = flight.FlightDescriptor.for_path("public", name)
                yield flight.FlightInfo(NUMBERS, descriptor, [], rows, -1)

    def get_schema(self, context, descriptor):
        return flight.SchemaResult(self.schema_of(parse(descriptor)["table"]))

    def do_action(self, context, action):
        answers = {"info": {"server": "pgflight", "decode": "cpu"}, "counts": self.counts}
        yield json.dumps(answers[action.type]).encode()

    def do_put(self, context, descriptor, reader, writer):
        self.types[descriptor.path[0].decode()] = reader.read_all()

    def get_flight_info(self, context, descriptor):
        self.count("planned")
        request = parse(descriptor)
        name, options = request["table"], request.get("options", {})
        unknown = options.keys() - KNOWN_OPTIONS
        if unknown:
            raise flight.FlightServerError(f"unknown option {unknown.pop()!r}")
        if name == "never_planned":
            wait_for_cancel(context)
        if name == "nowhere":
            raise flight.FlightServerError('relation "nowhere" does not exist (42P01)')
        if name == "echo":
            request["kind"] = "path" if descriptor.path else "command"
            self.types["echo"] = pa.table({"request": [json.dumps(request)], "raw": [raw(descriptor)]})
        parts = options.get("endpoints", 1)
        locations = options.get("locations", [])
        tickets = [{"table": name, "part": part, "parts": parts, **options} for part in range(parts)]
        endpoints = [flight.FlightEndpoint(json.dumps(ticket).encode(), locations) for ticket in tickets]
        rows = BATCHES * BATCH_ROWS if name == "numbers" else -1
        return flight.FlightInfo(self.schema_of(name), descriptor, endpoints, rows, -1)

    def do_get(self, context, ticket):
        request = json.loads(ticket.ticket)
        if request["table"] == "never_opened":
            wait_for_cancel(context)
        if request["table"] == "fails_at_once":
            raise flight.FlightUnauthorizedError("permission denied for table secret (42501)")
        schema = self.schema_of(request["table"])
        if request.get("schema_change"):
            schema = schema.append(pa.field("added", pa.bool_()))
        return flight.GeneratorStream(schema, self.counted(self.batches(context, request)))

    def schema_of(self, name):
        return self.types[name].schema if name in self.types else NUMBERS

    def batches(self, context, request):
        name, part, parts = request["table"], request["part"], request["parts"]
        if name in self.types:
            yield from ([self.types[name]] if part == 0 else [])
            return
        for index in range(BATCHES * part // parts, BATCHES * (part + 1) // parts):
            yield number_batch(index)
            if name == "stalls":
                wait_for_cancel(context)
            if name == "fails_midway" and index == 4:
                raise flight.FlightServerError("invalid value in row 5000 (22P02)")
        while name == "endless":
            yield number_batch(0)

    def counted(self, batches):
        outcome = "broken_off"
        self.count("started")
        try:
            yield from batches
            outcome = "finished"
        finally:
            self.count(outcome)

    def count(self, what):
        with self.lock:
            self.counts[what] += 1


class BearerAuth(flight.ServerMiddlewareFactory):
    def __init__(self, token):
        self.expected = f"Bearer {token}"

    def start_call(self, info, headers):
        if headers.get("authorization") != [self.expected]:
            raise flight.FlightUnauthenticatedError("no valid token")


def raw(descriptor):
    return (descriptor.command or b"").decode() or ".".join(part.decode() for part in descriptor.path)


def parse(descriptor):
    if descriptor.path:
        return {"table": descriptor.path[-1].decode(), "path": [part.decode() for part in descriptor.path]}
    command = descriptor.command.decode()
    request = json.loads(command) if command.startswith("{") else {"sql": command}
    if "sql" in request:
        request["table"] = re.search(r"from (\w+)", request["sql"])[1]
    else:
        request["table"] = request["table"].split(".")[-1]
    return request


def wait_for_cancel(context):
    deadline = time.monotonic() + 60
    while not context.is_cancelled() and time.monotonic() < deadline:
        time.sleep(0.01)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--uri", default="grpc://127.0.0.1:0")
    parser.add_argument("--token")
    parser.add_argument("--cert", type=Path)
    parser.add_argument("--key", type=Path)
    given = parser.parse_args()
    tls = [(given.cert.read_bytes(), given.key.read_bytes())] if given.cert else None
    server = Server(given.uri, given.token, tls_certificates=tls)
    print(server.port, flush=True)
    server.serve()


if __name__ == "__main__":
    main()
