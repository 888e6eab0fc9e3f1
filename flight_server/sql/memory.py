"""What the catalog said, for as long as nothing has been committed since.

Triggers that would tell of DDL are for superusers.  But two snapshots that list the same transactions see the same
rows, those of the catalog included: what was read under one is good under the other, and one look at the snapshot
tells.  Any commit ends what is remembered: on a busy database the catalog is read each time.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import pyarrow as pa

from flight_server.options import ReadOptions
from flight_server.reading.pipeline import Pipeline
from flight_server.request import ReadRequest
from flight_server.sql.shelf import Shelf, packed

Check = Callable[[], None]
Given = Sequence[str | None]
Ask = Callable[[str, Given], pa.Table]
OPTIONS = ReadOptions(decode="cpu", streams=1)
"""Of queries of the catalog: their results are small."""
MAX_RESULTS = 256
MAX_RESULT_BYTES = 32 << 20
LIFETIME_S = 600.0


class CatalogMemory:
    """Queries the catalog for one login, or remembers what it said.  Thread-safe.

    Parameters
    ----------
    pipeline : Pipeline
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._shelf: Shelf[tuple[str, pa.Buffer]] = Shelf(MAX_RESULTS, MAX_RESULT_BYTES, LIFETIME_S)

    def query(self, text: str, given: Given, check: Check) -> pa.Table:
        """Return a query's rows as they are now; see `made`."""
        return self.made((text, *given), lambda ask: ask(text, given), check)

    def made(self, key: Hashable, make: Callable[[Ask], pa.Table], check: Check) -> pa.Table:
        """Return what is made of queries, as they are answered now.

        Parameters
        ----------
        key : hashable
            Says what is made.
        make : callable
            Is given what asks the catalog, under one snapshot, by text and parameters.  The queries may look at
            the catalog alone, by functions whose results depend on it alone.
        check : callable
            Raises when the client has gone.
        """
        with self._pipeline.sessions.open(ReadRequest(sql="", options=OPTIONS)) as session:
            moment = session.moment()
            seen, kept = self._shelf.get(key) or ("", None)
            if kept is not None and seen == moment:
                return pa.ipc.open_stream(kept).read_all()

            def ask(text: str, given: Given) -> pa.Table:
                request = ReadRequest(sql=text, params=tuple(given), options=OPTIONS)
                schema, batches = self._pipeline.read(request, check, within=session)
                return pa.Table.from_batches(list(batches), schema)

            table = make(ask)
        if moment is not None:
            buffer = packed(table)
            self._shelf.put(key, (moment, buffer), buffer.size)
        return table
