"""DuckDB's PostgreSQL scanner: COPY BINARY through libpq into DuckDB's vectors, and from those to Arrow.

The extension comes from a wheel, so that nothing is downloaded; it must be built for exactly this DuckDB.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.resources import files

import duckdb
import pyarrow as pa

from benchmark.contestants import DUCKDB
from benchmark.target import Target

EXTENSION = files(DUCKDB) / "extensions" / f"v{duckdb.__version__}" / "postgres_scanner.duckdb_extension"
BATCH_ROWS = 100_000
SCAN = "SELECT * FROM postgres_scan($1, 'public', $2)"


def single(target: Target) -> Iterator[pa.RecordBatch]:
    """One COPY of the whole table."""
    return _scan(target, "SET pg_use_ctid_scan = false")


def parallel(target: Target) -> Iterator[pa.RecordBatch]:
    """Ranges of pages, as it comes; but for the number of threads, and free to return rows in any order."""
    return _scan(target, f"SET threads = {target.streams}; SET preserve_insertion_order = false")


def _scan(target: Target, settings: str) -> Iterator[pa.RecordBatch]:
    with _database().cursor() as connection:
        connection.execute(settings)
        # Not connection.sql(), which takes ten times as long over the same rows.
        yield from connection.execute(SCAN, [target.dsn, target.table]).to_arrow_reader(BATCH_ROWS)


@cache
def _database() -> duckdb.DuckDBPyConnection:
    """Load the extension once: that is not part of a read."""
    database = duckdb.connect(config={"autoinstall_known_extensions": False})
    database.load_extension(str(EXTENSION))
    return database
