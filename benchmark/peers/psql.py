"""psql: the same COPY into the void; what people reach for to see how fast PostgreSQL is."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from benchmark.target import Drained, Target


def read(target: Target) -> Iterator[Drained]:
    """Run psql to its end; that it ends well says that all rows came."""
    known = conninfo_to_dict(target.dsn)
    environment = {**os.environ, "PGPASSWORD": str(known.pop("password", ""))}
    statement = f"COPY ({target.sql}) TO STDOUT (FORMAT BINARY)"
    command = ["psql", "--no-psqlrc", "--dbname", make_conninfo("", **known), "--command", statement]
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    yield Drained(target.rows)
