"""pgflight, read by Apache Arrow ADBC's Flight SQL driver: what a client that knows nothing of us gets."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from adbc_driver_flightsql import DatabaseOptions, dbapi

from benchmark.target import Target

STREAMS = f"{DatabaseOptions.RPC_CALL_HEADER_PREFIX.value}x-pgflight-streams"


def batches(target: Target) -> Iterator[pa.RecordBatch]:
    """One stream, read batch by batch."""
    return _read(target, 1)


def batches_parallel(target: Target) -> Iterator[pa.RecordBatch]:
    """Several streams, read batch by batch."""
    return _read(target, target.streams)


def _read(target: Target, streams: int) -> Iterator[pa.RecordBatch]:
    with (
        dbapi.connect(target.uri, {STREAMS: str(streams)}, autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(target.sql)
        yield from cursor.fetch_record_batch()
