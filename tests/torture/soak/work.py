"""Pieces of work of a soaking client: each checks what it got, and says how it ended."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
from adbc_driver_flightsql import dbapi

import pgflight
from tests.torture.soak.data import BIG, BIG_ROWS, COLUMNS, TABLE, Part, digest

COMPLETE, CANCELLED, STALLED, REFUSED = "complete", "cancelled", "stalled", "refused"
CANCEL_SHARE, STALL_SHARE = 0.14, 0.05
TRY_AGAIN = {"FlightUnavailableError", "FlightTimedOutError", "FlightCancelledError"}
TRY_AGAIN_ADBC = {"IO", "TIMEOUT", "CANCELLED"}
"""A full server, or a client that was itself stopped for long; everything else must not be."""
INGESTED_ROWS = 5000
ROUNDS = 25
"""Pieces of work until a client connects anew."""


class WrongError(AssertionError):
    """What was read is not what is there."""


def is_refusal(failure: Exception) -> bool:
    """Whether an error says that one may try again."""
    if isinstance(failure, dbapi.Error):
        return failure.status_code.name in TRY_AGAIN_ADBC
    return any(kind.__name__ in TRY_AGAIN for kind in type(failure).__mro__)


class Work:
    """Does one piece of work after another, over one pair of connections.

    Parameters
    ----------
    flight, sql
        Connected clients of both protocols.
    parts
        Of the table, to be read.
    source
        Of chance.
    stopping
        Ends stalls early.
    stall_s
        For how long a client that stalls does not read.
    """

    def __init__(
        self,
        flight: pgflight.Client,
        sql: dbapi.Connection,
        parts: Sequence[Part],
        source: random.Random,
        stopping: threading.Event,
        stall_s: float,
    ) -> None:
        self._flight, self._sql, self._parts = flight, sql, parts
        self._random, self._stopping, self._stall_s = source, stopping, stall_s
        self._kinds: dict[Callable[[], str], float] = {
            self.table: 0.32, self.statement: 0.28, self.flight_sql: 0.12, self.prepared: 0.1, self.ingest: 0.06,
            self.metadata: 0.12,
        }  # fmt: skip

    def once(self) -> tuple[str, str]:
        """Do something; return what, and how it ended."""
        chosen = self._random.random()
        if chosen < CANCEL_SHARE:
            kind = self.cancel
        elif chosen < CANCEL_SHARE + STALL_SHARE:
            kind = self.stall
        else:
            [kind] = self._random.choices(list(self._kinds), list(self._kinds.values()))
        try:
            return kind.__name__, kind()
        except (pa.ArrowException, dbapi.Error) as failure:
            if is_refusal(failure):
                return kind.__name__, REFUSED
            raise

    def table(self) -> str:
        """Read a part of the table, by one stream or several."""
        part = self._part()
        read = self._flight.table(TABLE, where=f"id between {part.first} and {part.last}", streams=self._streams())
        return _checked(part, read.to_arrow())

    def statement(self) -> str:
        """Read a part by SQL."""
        part = self._part()
        query = f"select {COLUMNS} from {TABLE} where id between $1 and $2"
        return _checked(part, self._flight.query(query, [part.first, part.last]).to_arrow())

    def flight_sql(self) -> str:
        """Read a part by Flight SQL."""
        part = self._part()
        with self._sql.cursor() as cursor:
            cursor.execute(f"select {COLUMNS} from {TABLE} where id between {part.first} and {part.last}")
            return _checked(part, cursor.fetch_arrow_table())

    def prepared(self) -> str:
        """Prepare once, read twice."""
        with self._sql.cursor() as cursor:
            for part in (self._part(), self._part()):
                cursor.execute(
                    f"select {COLUMNS} from {TABLE} where id between $1 and $2", (part.first, part.last)
                )
                _checked(part, cursor.fetch_arrow_table())
        return COMPLETE

    def ingest(self) -> str:
        """Fill a temporary table, count it, and take everything back."""
        rows = pa.table({"id": pa.array(range(INGESTED_ROWS)), "text": ["soaked"] * INGESTED_ROWS})
        self._sql.adbc_connection.set_autocommit(False)
        try:
            with self._sql.cursor() as cursor:
                cursor.adbc_ingest("bathed", rows, mode="create", temporary=True)
                cursor.execute("select count(*), sum(id)::int8 from bathed")
                found = cursor.fetchone()
        finally:
            self._sql.rollback()
            self._sql.adbc_connection.set_autocommit(True)
        return _same(found, (INGESTED_ROWS, INGESTED_ROWS * (INGESTED_ROWS - 1) // 2))

    def metadata(self) -> str:
        """Ask for tables and facts."""
        _same(TABLE in [table.name for table in self._flight.tables("public.%")], True)
        _same(self._flight.schema(TABLE).names[0], "id")
        return _same(self._sql.adbc_get_table_types(), self._sql.adbc_get_table_types())

    def cancel(self) -> str:
        """Begin a long read, and have enough of it."""
        reader = self._flight.query(BIG, streams=self._streams())
        for number, _ in enumerate(reader):
            if number == self._random.randrange(4):
                self._random.choice((reader.cancel, reader.close, lambda: None))()
                break
        return CANCELLED

    def stall(self) -> str:
        """Begin a long read, do not go on for a while, and then do: it is whole, or ended with an error."""
        with self._flight.query(BIG) as reader:
            batches = iter(reader)
            rows = next(batches).num_rows
            self._stopping.wait(self._stall_s)
            try:
                rows += sum(batch.num_rows for batch in batches)
            except pa.ArrowException as failure:
                if is_refusal(failure):
                    return STALLED
                raise
        return _same(rows, BIG_ROWS)

    def _part(self) -> Part:
        return self._random.choice(self._parts)

    def _streams(self) -> int | None:
        return self._random.choice((None, 1, 2, 4))


@contextmanager
def connected(
    uri: str, parts: Sequence[Part], source: random.Random, stopping: threading.Event, stall_s: float
) -> Iterator[Work]:
    """Connect by both protocols, sometimes with shared memory."""
    with (
        pgflight.connect(uri, share_memory=source.random() < 0.5) as flight,
        dbapi.connect(uri, autocommit=True) as sql,
    ):
        yield Work(flight, sql, parts, source, stopping, stall_s)


def _checked(part: Part, found: pa.Table) -> str:
    _same(found.num_rows, part.rows)
    return _same(digest(found.select(COLUMNS.split(", "))), part.digest)


def _same(found: object, wanted: object) -> str:
    if found != wanted:
        raise WrongError(f"{found!r} instead of {wanted!r}")
    return COMPLETE
