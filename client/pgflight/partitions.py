"""A read dealt to several readers: partitions that travel to other processes, can be read again, and add up."""

import json
import pickle
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
from pyarrow import flight

from pgflight.connection import Connections, Settings

ATTEMPTS = 4
FIRST_PAUSE_S = 0.2
LOST = (flight.FlightUnavailableError, flight.FlightInternalError, OSError)
"""What a server that died or was cut off looks like; also what passes by itself, such as a full server."""
ENDED = "plan the read again"


class SnapshotEndedError(pa.ArrowKeyError):
    """The snapshot that the partitions read has ended: plan the read again.

    It ends some minutes after it was last read, when it was cancelled, or with the server that held it.
    """


@dataclass(frozen=True)
class Partition:
    """A part of a planned read: the same rows whenever and wherever it is read, or an error.

    It can be pickled and sent to another process or host; the token goes with it.
    """

    ticket: bytes = field(repr=False)
    locations: tuple[str, ...]
    schema: pa.Schema = field(repr=False)
    settings: Settings = field(repr=False)

    def read(self) -> pa.Table:
        """Read the whole partition; when a server is lost on the way, again from the start, at the next location.

        Raises
        ------
        SnapshotEndedError
            Nobody holds the snapshot any more.
        """
        return pa.Table.from_batches(list(self._batches(replay=True)), schema=self.schema)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Iterate over the batches as they come; a server that is lost after the first one is an error."""
        return self._batches(replay=False)

    def _batches(self, *, replay: bool) -> Iterator[pa.RecordBatch]:
        connections = _connections(self.settings)
        left = list(self.locations) or [self.settings.uri]
        for attempt in range(1, ATTEMPTS + 1):
            uri = left[0]
            batches: list[pa.RecordBatch] = []
            try:
                for chunk in connections.do_get(uri, flight.Ticket(self.ticket)):
                    if not replay:
                        batches = [chunk.data]
                        yield chunk.data
                    else:
                        batches.append(chunk.data)
            except KeyError as failure:
                left.remove(uri)  # a replica that has read before may still hold the snapshot
                if ENDED not in str(failure) or not left or (batches and not replay):
                    raise _ended(failure) from None
            except LOST:
                if attempt == ATTEMPTS or (batches and not replay):
                    raise
                left.append(left.pop(0))
                time.sleep(FIRST_PAUSE_S * 2 ** (attempt - 1) * random.uniform(0.5, 1))  # noqa: S311
            else:
                if replay:
                    yield from batches
                return


class Plan:
    """A read that has been dealt to partitions under one snapshot, made by :meth:`Client.plan`.

    A context manager: leaving it gives the snapshot back. Without that it ends by itself.
    """

    def __init__(self, info: flight.FlightInfo, connections: Connections) -> None:
        self._info = info
        self._connections = connections
        self.schema: pa.Schema = info.schema
        self.facts: dict[str, Any] = json.loads(info.app_metadata) if info.app_metadata else {}
        self.partitions = tuple(
            Partition(
                endpoint.ticket.ticket,
                tuple(location.uri.decode() for location in endpoint.locations),
                info.schema,
                connections.settings,
            )
            for endpoint in info.endpoints
        )
        self.expires_at: datetime | None = _moment(info.endpoints[0])

    def renew(self) -> None:
        """Ask for the snapshot to be held for longer; reading prolongs it, too."""
        body = self._call("RenewFlightEndpoint", self._info.endpoints[0].serialize())
        self.expires_at = _moment(flight.FlightEndpoint.deserialize(body))

    def cancel(self) -> None:
        """Give the snapshot back; partitions that are being read end."""
        if self.expires_at is not None:
            self._call("CancelFlightInfo", self._info.serialize())
            self.expires_at = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def __repr__(self) -> str:
        return f"<pgflight.Plan of {len(self.partitions)} partitions, {len(self.schema)} columns>"

    def _call(self, action: str, message: bytes) -> bytes:
        options = self._connections.settings.call_options()
        try:
            results = list(self._connections.home.do_action(flight.Action(action, _field(message)), options))
        except KeyError as failure:
            raise _ended(failure) from None
        return bytes(results[0].body.to_pybytes())


_cache: dict[bytes, Connections] = {}
_cache_lock = threading.Lock()


def _connections(settings: Settings) -> Connections:
    """Return this process's connections for some settings: partitions of one plan share them."""
    key = pickle.dumps(settings)
    with _cache_lock:
        if key not in _cache:
            _cache[key] = Connections(settings)
        return _cache[key]


def _ended(failure: KeyError) -> KeyError:
    return SnapshotEndedError(*failure.args) if ENDED in str(failure) else failure


def _moment(endpoint: flight.FlightEndpoint) -> datetime | None:
    expires = endpoint.expiration_time
    return None if expires is None else expires.cast(pa.timestamp("us", "UTC"), safe=False).as_py()


def _field(message: bytes) -> bytes:
    """Wrap a message as field 1 of another: what protobuf makes of the requests of Flight's own actions."""
    size, length = len(message), bytearray(b"\x0a")
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes(length) + bytes([size]) + message
