"""Libraries that read through ADBC: each has ways of its own to ask."""

from __future__ import annotations

import subprocess
import sys

import duckdb
import pandas as pd
import polars as pl
import psycopg
import pyarrow as pa
import pytest
from adbc_driver_flightsql import DatabaseOptions, dbapi

from tests.helpers.server import ServerProcess

ELSEWHERE = """
import sys
from adbc_driver_flightsql import dbapi
with dbapi.connect(sys.argv[1], autocommit=True) as connection, connection.cursor() as cursor:
    cursor.execute("select $1::int4 + 1 as a", (41,))
    print(cursor.fetchone()[0])
"""


def test_polars(adbc: dbapi.Connection, shop: psycopg.Connection) -> None:
    shop.execute("insert into scratch.goods (label, price) values ('a', 1.5), ('ü', 2)")
    frame = pl.read_database("select id, label, price, code from scratch.goods order by id", connection=adbc)
    assert frame.rows() == shop.execute("select id, label, price, code from scratch.goods order by id").fetchall()
    empty = pl.read_database("select id from scratch.goods where false", connection=adbc)
    assert empty.schema == {"id": pl.Int64}
    by_id = pl.read_database(
        "select label from scratch.goods where id = $1", connection=adbc, execute_options={"parameters": (2,)}
    )
    assert by_id["label"].to_list() == ["ü"]


def test_polars_by_uri(server: ServerProcess) -> None:
    uri = server.uri.replace("grpc://", "flightsql://") + "?transport=tcp"
    with pytest.warns(dbapi.Warning, match="autocommit"):  # the driver would rather begin transactions
        assert pl.read_database_uri("select 1 as a", uri, engine="adbc")["a"].to_list() == [1]


def test_pandas(adbc: dbapi.Connection, shop: psycopg.Connection) -> None:
    """pandas asks first whether the statement is the name of a table."""
    shop.execute("insert into scratch.goods (label, price) values ('a', 1.5), ('b', 2)")
    frame = pd.read_sql("select label from scratch.goods where false -- a_b%\\", adbc)
    assert frame.empty
    frame = pd.read_sql("select label, price::float8 as p from scratch.goods order by id", adbc)
    assert frame.to_dict("list") == {"label": ["a", "b"], "p": [1.5, 2.0]}
    adbc.adbc_current_db_schema = "scratch"
    assert pd.read_sql_table("goods", adbc)["label"].to_list() == ["a", "b"]


def test_duckdb(adbc: dbapi.Connection) -> None:
    """DuckDB scans the driver's stream."""
    with adbc.cursor() as cursor:
        cursor.execute("select g, g % 3 as k from generate_series(1, 10000) g")
        rows = cursor.fetch_record_batch()  # noqa: F841 (DuckDB finds it by its name)
        found = duckdb.sql("select k, count(*) as n, sum(g) as s from rows group by k order by k").fetchall()
    assert found == [(0, 3333, 16668333), (1, 3334, 16671667), (2, 3333, 16665000)]


def test_types_for_plain_clients(server: ServerProcess) -> None:
    """No extension types and no decimals, by headers that any client can send."""
    header = DatabaseOptions.RPC_CALL_HEADER_PREFIX.value
    arguments = {f"{header}x-pgflight-profile": "plain", f"{header}x-pgflight-numeric": "float64"}
    with dbapi.connect(server.uri, db_kwargs=arguments, autocommit=True) as connection:
        with connection.cursor() as cursor:
            cursor.execute("select 1.5::numeric(5, 2) as n, gen_random_uuid() as u, '{}'::jsonb as j")
            assert cursor.fetch_arrow_table().schema.types == [pa.float64(), pa.binary(16), pa.string()]


@pytest.mark.parametrize("count", [4])
def test_other_processes(server: ServerProcess, count: int) -> None:
    command = [sys.executable, "-c", ELSEWHERE, server.uri]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    for process in running:
        out, _ = process.communicate(timeout=60)
        assert out == "42\n"
        assert process.returncode == 0
