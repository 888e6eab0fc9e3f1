"""psql: the same COPY into the void; what people reach for to see how fast PostgreSQL is."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from benchmark.target import Drained, Target
from demo.floor import copy_statements


def read(target: Target) -> Iterator[Drained]:
    """Run psql to its end; that it ends well says that all rows came."""
    return _run(target, [f"COPY ({target.sql}) TO STDOUT (FORMAT BINARY)"])


def parallel(target: Target) -> Iterator[Drained]:
    """Run one psql for each of as many ranges of the table's pages as there are streams."""
    return _run(target, copy_statements(target.dsn, target.table, target.streams))


def _run(target: Target, statements: Sequence[str]) -> Iterator[Drained]:
    known = conninfo_to_dict(target.dsn)
    environment = {**os.environ, "PGPASSWORD": str(known.pop("password", ""))}
    command = ["psql", "--no-psqlrc", "--dbname", make_conninfo("", **known), "--command"]
    with ThreadPoolExecutor(len(statements)) as threads:
        running = [
            threads.submit(
                subprocess.run, [*command, each], env=environment, stdout=subprocess.DEVNULL, check=True
            )
            for each in statements
        ]
        for each in running:
            each.result()
    yield Drained(target.rows)
