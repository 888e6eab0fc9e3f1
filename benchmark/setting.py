"""The servers that a benchmark needs: a PostgreSQL with filled tables, and pgflight in front of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from benchmark.target import Target
from demo.datasets import DATASETS
from demo.postgres import EmbeddedPostgres
from demo.server import ServerProcess


@contextmanager
def postgres(dsn: str | None, data: Path | None, settings: Mapping[str, str] | None = None) -> Iterator[str]:
    """Use the PostgreSQL at `dsn`, or start one on the cluster in `data`, or on a throwaway one; yield its DSN.

    `settings` are for one that is started.
    """
    if dsn is not None:
        yield dsn
        return
    with EmbeddedPostgres.start(data, auth="scram-sha-256", settings=settings) as started:
        yield started.dsn()


@contextmanager
def pgflight_server(
    dsn: str, *options: str, environment: Mapping[str, str] | None = None
) -> Iterator[ServerProcess]:
    """Start the server; the password travels in its environment."""
    known = conninfo_to_dict(dsn)
    secret = {"PGPASSWORD": str(known.pop("password"))} if "password" in known else {}
    with tempfile.NamedTemporaryFile(prefix="pgflight-benchmark-") as log:
        variables = {**secret, **(environment or {})}
        started = ServerProcess.start(
            make_conninfo("", **known), log=Path(log.name), options=options, environment=variables
        )
        with started as server:
            yield server


def fill(target: Target, progress: Callable[[int], None]) -> None:
    """Fill the target's table, unless it is as wanted, and the small ones beside it."""
    DATASETS[target.table].fill(target.dsn, target.rows, progress=progress)
    with psycopg.connect(target.dsn) as connection:
        for small in (target.warm, target.sample):
            if small.table != target.table:
                connection.execute(f"DROP TABLE IF EXISTS {small.table}".encode())
                first_rows = f"CREATE TABLE {small.table} AS TABLE {target.table} LIMIT {small.rows}"
                connection.execute(first_rows.encode())
