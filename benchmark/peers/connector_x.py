"""ConnectorX: COPY BINARY through its own Rust driver, the whole result as one Arrow table."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import connectorx
import psycopg
import pyarrow as pa
from psycopg.conninfo import conninfo_to_dict

from benchmark.target import Target


def single(target: Target) -> Iterator[pa.Table]:
    """One query."""
    yield connectorx.read_sql(_uri(target.dsn), target.sql, return_type="arrow")


def partitioned(target: Target) -> Iterator[pa.Table]:
    """Ranges of the first column's values, as many as there are streams."""
    yield connectorx.read_sql(
        _uri(target.dsn),
        target.sql,
        return_type="arrow",
        partition_on=_first_column(target),
        partition_num=target.streams,
    )


def _uri(dsn: str) -> str:
    part = {name: quote(str(value), safe="") for name, value in conninfo_to_dict(dsn).items()}
    login = f"{part['user']}:{part['password']}" if "password" in part else part["user"]
    return f"postgresql://{login}@{part['host']}:{part['port']}/{part['dbname']}"


def _first_column(target: Target) -> str:
    with psycopg.connect(target.dsn) as connection:
        described = connection.execute(f"{target.sql} LIMIT 0".encode()).description
    return described[0].name if described else ""
