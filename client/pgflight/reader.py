"""A query's result as a lazy stream of record batches, and the forms it can be collected into."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa
from pyarrow import flight

from pgflight import convert
from pgflight.device import DeviceBatch, DeviceStream, LeaseConnections
from pgflight.shared import SharedMemories, SharedMemory

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

OpenEndpoint = Callable[[flight.FlightEndpoint, Mapping[str, str] | None], flight.FlightStreamReader]


@dataclass(frozen=True)
class Progress:
    """How far a reader has come. The estimates are the server's; None where it has none."""

    rows: int
    bytes: int
    estimated_rows: int | None
    estimated_bytes: int | None


class Calls:
    """The streams behind one reader: opened one after another, cancelled from any thread."""

    def __init__(self, info: flight.FlightInfo, open_endpoint: OpenEndpoint) -> None:
        self.info = info
        self.on_progress: Callable[[Progress], None] | None = None
        self.rows = 0
        self.bytes = 0
        self._open = open_endpoint
        self._lock = threading.Lock()
        self._current: flight.FlightStreamReader | None = None
        self._cancelled = False

    @property
    def facts(self) -> dict[str, Any]:
        """What the server says of how it reads; {} if it does not."""
        said = self.info.app_metadata
        return json.loads(said) if said else {}

    @property
    def at_home(self) -> bool:
        """Whether all of it is read from the server that was asked."""
        return not any(endpoint.locations for endpoint in self.info.endpoints)

    def chunks(self, headers: Mapping[str, str] | None = None) -> Iterator[flight.FlightStreamChunk]:
        """Read every endpoint's stream in order, asked for with headers of its own.

        Closing this generator cancels the running call.
        """
        try:
            for number, endpoint in enumerate(self.info.endpoints):
                stream = self._start(endpoint, headers)
                if not stream.schema.equals(self.info.schema):
                    raise pa.ArrowInvalid(
                        f"the schema changed between planning and reading (endpoint {number}): "
                        f"planned {self.info.schema}, got {stream.schema}"
                    )
                for chunk in stream:
                    if chunk.data is not None and chunk.app_metadata is None:
                        self.count(chunk.data.num_rows, chunk.data.nbytes)
                    yield chunk
                self._forget()
        finally:
            self._stop_current()

    def cancel(self) -> None:
        """Cancel the running call and start no other."""
        with self._lock:
            self._cancelled = True
        self._stop_current()

    def progress(self) -> Progress:
        """Return the rows and bytes read so far."""
        return Progress(self.rows, self.bytes, known(self.info.total_records), known(self.info.total_bytes))

    def count(self, rows: int, size_bytes: int) -> None:
        """Take note of a batch that has arrived."""
        self.rows += rows
        self.bytes += size_bytes
        if self.on_progress is not None:
            self.on_progress(self.progress())

    def _start(
        self, endpoint: flight.FlightEndpoint, headers: Mapping[str, str] | None
    ) -> flight.FlightStreamReader:
        self._check()
        stream = self._open(endpoint, headers)
        with self._lock:
            self._current = stream
        if self._cancelled:  # while the call was being opened, when there was no stream to cancel yet
            stream.cancel()
        self._check()
        return stream

    def _check(self) -> None:
        if self._cancelled:
            raise flight.FlightCancelledError("the reader was cancelled or closed")

    def _forget(self) -> None:
        with self._lock:
            self._current = None

    def _stop_current(self) -> None:
        with self._lock:
            stream, self._current = self._current, None
        if stream is not None:
            stream.cancel()


class Reader:
    """The result of a query, read once: iterate over it, or call one of the ``to_`` methods.

    Nothing is read before that. Leaving a loop early, :meth:`close` or the end of a ``with`` block cancels
    the query on the server. Reading a second time is a ``RuntimeError``. Errors are pyarrow's own:
    ``pyarrow.flight.FlightError`` and ``pyarrow.ArrowInvalid``.

    Also an Arrow C stream (``__arrow_c_stream__``): DuckDB, pandas, pyarrow and others take it directly.
    """

    def __init__(self, calls: Calls, leases: LeaseConnections, memories: SharedMemories | None = None) -> None:
        self._calls = calls
        self._leases = leases
        self._memories = memories if calls.at_home else None
        self._offer: Mapping[str, Any] | None = calls.facts.get("leases")
        self._used = False

    @property
    def schema(self) -> pa.Schema:
        """The schema of every batch; known before the first row."""
        return self._calls.info.schema

    @property
    def estimated_rows(self) -> int | None:
        """The server's estimate of the number of rows; None if it has none."""
        return known(self._calls.info.total_records)

    @property
    def estimated_bytes(self) -> int | None:
        """The server's estimate of the bytes on the wire; None if it has none."""
        return known(self._calls.info.total_bytes)

    @property
    def progress(self) -> Progress:
        """The rows and bytes (of Arrow memory) read so far."""
        return self._calls.progress()

    def on_progress(self, callback: Callable[[Progress], None]) -> Self:
        """Have `callback` called after every batch, in the thread that reads. Returns the reader."""
        self._calls.on_progress = callback
        return self

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Iterate over the record batches; a batch is at hand as soon as the server has sent it.

        Of a result in GPU memory they are copies on the host.
        """
        return self._batches(keep=False) if self._offer is None else self._copies()

    def chunks(self, headers: Mapping[str, str] | None = None) -> Iterator[flight.FlightStreamChunk]:
        """Iterate over batches (``data``) with their ``app_metadata``, the descriptors of device batches.

        Parameters
        ----------
        headers
            For the calls that read: whoever takes device batches says so there.
        """
        if self._used:
            raise RuntimeError("this reader has been read already: run the query again to read it again")
        self._used = True
        return self._calls.chunks(headers)

    def device_batches(self) -> Iterator[DeviceBatch]:
        """Iterate over batches in GPU memory, of a query planned with ``output="cuda-ipc"``.

        The server makes no further batches while too much is held: drop each, or leave its ``with`` block.

        Raises
        ------
        ValueError
            The query was planned for host batches.
        pgflight.device.DeviceError
            Of the class that says why this process cannot read the server's GPU memory.
        """
        if self._offer is None:
            raise ValueError('device batches need a query that was planned with output="cuda-ipc"')
        stream = DeviceStream(self._leases.open(self._offer))
        return self._counted(stream.batches(self.chunks(stream.headers), self.schema))

    def to_arrow(self) -> pa.Table:
        """Read everything into a table."""
        batches = self._batches(keep=True) if self._offer is None else self._copies()
        return pa.Table.from_batches(list(batches), schema=self.schema)

    def to_reader(self) -> pa.RecordBatchReader:
        """Return the stream as a ``pyarrow.RecordBatchReader``."""
        return pa.RecordBatchReader.from_batches(self.schema, iter(self))

    def to_pandas(self, **options: Any) -> "pd.DataFrame":
        """Read everything into a pandas data frame.

        Parameters
        ----------
        **options
            For ``pyarrow.Table.to_pandas``, such as ``types_mapper=pandas.ArrowDtype``.
        """
        return convert.for_pandas(self.to_arrow()).to_pandas(**options)

    def to_polars(self) -> "pl.DataFrame":
        """Read everything into a Polars data frame.

        Extension types become what they are stored as (``arrow.uuid`` binary, ``arrow.json`` string),
        intervals a struct of months, days and nanoseconds, decimals of more than 38 digits strings: nothing
        is lost.
        """
        import polars as pl  # noqa: PLC0415 - an extra

        return pl.DataFrame(convert.for_polars(self.to_arrow()))

    def cancel(self) -> None:
        """Stop the query, from any thread; whoever reads gets ``pyarrow.flight.FlightCancelledError``."""
        self._calls.cancel()

    def close(self) -> None:
        """Cancel what has not been read. Harmless after the end, and a second time."""
        self._used = True
        self._calls.cancel()

    def _batches(self, *, keep: bool) -> Iterator[pa.RecordBatch]:
        """Read host batches: in shared memory, if the server is on this host, or received."""
        memory = self._memories.take() if self._memories is not None else None
        if memory is None:
            return (chunk.data for chunk in self.chunks() if chunk.data is not None)
        return self._shared(memory, self.chunks(memory.headers), keep=keep)

    def _shared(
        self, memory: SharedMemory, chunks: Iterator[flight.FlightStreamChunk], *, keep: bool
    ) -> Iterator[pa.RecordBatch]:
        for chunk in chunks:
            batch = memory.batch(chunk, keep=keep)
            if batch is not None:
                self._calls.count(batch.num_rows, batch.nbytes)
                yield batch
            elif chunk.data is not None:
                yield chunk.data
        if self._memories is not None:  # of a read that was stopped the server may still be writing
            self._memories.give_back(memory)

    def _counted(self, batches: Iterator[DeviceBatch]) -> Iterator[DeviceBatch]:
        for batch in batches:
            self._calls.count(batch.num_rows, batch.nbytes)
            yield batch

    def _copies(self) -> Iterator[pa.RecordBatch]:
        for batch in self.device_batches():
            with batch:
                yield batch.to_arrow()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __arrow_c_schema__(self) -> object:
        return self.schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.to_reader().__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        return f"<pgflight.Reader of {len(self.schema)} columns, {self._calls.rows} rows read>"


def known(count: int) -> int | None:
    """Flight's -1 for an unknown count, in Python's words."""
    return count if count >= 0 else None
