"""Apache Arrow ADBC's PostgreSQL driver: COPY BINARY through libpq, decoded in C++."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from adbc_driver_postgresql import dbapi

from benchmark.target import Target


def batches(target: Target) -> Iterator[pa.RecordBatch]:
    """Read batch by batch."""
    with dbapi.connect(target.dsn) as connection, connection.cursor() as cursor:
        cursor.execute(target.sql)
        yield from cursor.fetch_record_batch()


def table(target: Target) -> Iterator[pa.Table]:
    """Collect a table."""
    with dbapi.connect(target.dsn) as connection, connection.cursor() as cursor:
        cursor.execute(target.sql)
        yield cursor.fetch_arrow_table()
