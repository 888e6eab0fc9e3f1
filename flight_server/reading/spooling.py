"""Reads that are kept, and served again from disk: which request is which entry, and how it is decoded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pyarrow as pa

from flight_server.reading.decoding import Consumer, Decodings
from flight_server.reading.planning import Preview, require_schema
from flight_server.reading.stored import StoredRead
from flight_server.reading.tally import Tally
from flight_server.reading.transports import Transports
from flight_server.request import ReadRequest
from kernels.errors import RequestError
from kernels.plan import plan
from transport.spool import Entry, Recording, Spool

IGNORED = frozenset((
    "max_age_s", "timeout_s", "batch_bytes", "streams", "endpoints", "framing", "reader", "output", "decode",
    "transport", "compression",
))  # fmt: skip
"""Options that do not change which bytes PostgreSQL sends."""


class SpooledReads:
    """The spool of a server, as its pipeline uses it.

    Parameters
    ----------
    spool : Spool or None
        None where the server has none.
    decodings : Decodings
    transports : Transports
    max_row_bytes : int
    """

    def __init__(
        self, spool: Spool | None, decodings: Decodings, transports: Transports, max_row_bytes: int
    ) -> None:
        self._spool = spool
        self._decodings = decodings
        self._transports = transports
        self._max_row_bytes = max_row_bytes

    def find(self, request: ReadRequest, identity: str) -> Entry | None:
        """Open what is kept of a request and young enough, to be closed by the caller."""
        if not request.options.max_age_s:
            return None
        return self._required().find(_key(request, identity), request.options.max_age_s)

    def record(self, request: ReadRequest, identity: str) -> AbstractContextManager[Recording]:
        """Keep what a request reads."""
        return self._required().record(_key(request, identity), identity)

    def preview(self, request: ReadRequest, identity: str) -> Preview | None:
        """Describe a request that is kept, without PostgreSQL."""
        entry = self.find(request, identity)
        if entry is None:
            return None
        with entry:
            schema = plan(entry.columns, request.options.types).schema
            facts = {"streams": 1, "parts": 1, "why": "kept in the spool", "read_at": entry.created_at}
            return Preview(schema, entry.rows, entry.size_bytes, facts)

    def steps(
        self, entry: Entry, request: ReadRequest, consumer: Consumer, digest: str | None, tally: Tally
    ) -> Iterator[pa.Schema | pa.RecordBatch]:
        """Yield the schema, then the batches, of what is kept."""
        planned = plan(entry.columns, request.options.types)
        require_schema(planned, digest)
        tally.facts |= {"reader": "spool", "read_at": entry.created_at}
        yield planned.schema
        with self._transports.stored(request.options, tally, entry.stream_count) as moving:
            decoding = self._decodings.choose(request.options)
            read = StoredRead(entry, planned, request.options, decoding, moving, tally, self._max_row_bytes)
            yield from read.batches(consumer)

    def list(self, identity: str) -> list[dict[str, object]]:
        """Return what is kept for somebody."""
        return self._required().entries(identity)

    def drop(self, identity: str, key: str | None) -> int:
        """Remove what is kept for somebody, or one key of it."""
        return self._required().drop(identity, key)

    def close(self) -> None:
        """Let another server use the spool."""
        if self._spool is not None:
            self._spool.close()

    def _required(self) -> Spool:
        if self._spool is None:
            raise RequestError("this server has no spool: max_age_s needs one (setting spool_dir)")
        return self._spool


def _key(request: ReadRequest, identity: str) -> str:
    """Name an entry: whoever asks for the same as somebody else still gets another name."""
    parts = request.to_json()
    options = {name: value for name, value in parts.pop("options", {}).items() if name not in IGNORED}
    text = json.dumps([identity, parts, options], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
