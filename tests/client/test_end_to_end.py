"""The client library and its command against the real server and a real PostgreSQL."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import subprocess
import sys
import uuid
from pathlib import Path

import psycopg
import pyarrow as pa
import pytest
from pyarrow import parquet

import pgflight
from tests.helpers.server import ServerProcess

VALUES = """
    select g::int8 as id, (g / 4.0)::numeric(9, 2) as price, 'naïve ' || g as name, g % 2 = 0 as even,
           date '2024-02-29' + g as day, timestamptz '2024-02-29 12:00+02' as at,
           'c0ffee00-0000-4000-8000-000000000000'::uuid as code, jsonb_build_object('g', g) as doc,
           case when g % 3 = 0 then null else g::float8 end as maybe
    from generate_series(1, 5000) g
"""


@pytest.fixture
def table(database: psycopg.Connection) -> str:
    database.execute(f"create table scratch.things as {VALUES}")
    return "scratch.things"


def test_values_in_every_form(server: ServerProcess, table: str) -> None:
    with pgflight.connect(server.uri) as client:
        arrow = client.query(table).to_arrow()
        first = arrow.slice(0, 1).to_pylist()[0]
        assert first["price"] == decimal.Decimal("0.25")
        assert first["day"] == dt.date(2024, 3, 1)
        assert first["at"] == dt.datetime(2024, 2, 29, 10, tzinfo=dt.UTC)
        assert first["code"] == uuid.UUID("c0ffee00-0000-4000-8000-000000000000")
        frame = client.query(f"select id, name from {table} where id <= 10").to_pandas()
        assert frame["id"].sum() == 55
        polars = client.query(table).to_polars()
        assert polars.shape == (5000, 9)
        assert polars["maybe"].null_count() == 1666


def test_schema_tables_and_parameters(server: ServerProcess, table: str) -> None:
    with pgflight.connect(server.uri) as client:
        assert client.schema(table).field("price").type == pa.decimal128(9, 2)
        assert [info.name for info in client.tables("scratch.%")] == ["things"]
        counted = client.query(f"select count(*) as n from {table} where id > $1", params=[4990]).to_arrow()
        assert counted.to_pydict() == {"n": [10]}
        assert client.table(table, columns=["id"], where="even", limit=3).to_arrow().num_rows == 3
        assert client.info()["backend"]["name"] == "cpu"


def test_options_reach_the_server(server: ServerProcess, table: str) -> None:
    with pgflight.connect(server.uri) as client:
        plain = client.query(table, profile="plain", batch_bytes=65536, framing="copy")
        assert plain.schema.field("code").type == pa.binary(16)
        assert len(list(plain)) > 5
        with pytest.raises(pa.ArrowInvalid, match="speed"):
            client.query(table, speed=11).to_arrow()


def test_command_line(server: ServerProcess, table: str, tmp_path: Path) -> None:
    file = tmp_path / "things.parquet"
    command = [sys.executable, "-m", "pgflight", "query", table, "--uri", server.uri]
    subprocess.run([*command, "-o", str(file)], check=True, capture_output=True)
    assert parquet.read_table(file).num_rows == 5000
    shown = subprocess.run(
        [*command[:4], "select 1 as one, 'ü' as two", *command[5:]], check=True, capture_output=True, text=True
    )
    assert "one" in shown.stdout
    assert "ü" in shown.stdout
    explained = subprocess.run([*command, "--explain"], check=True, capture_output=True, text=True)
    assert json.loads(explained.stdout)["streams"] == 1
    failed = subprocess.run(
        [*command[:4], "select from where", *command[5:]], check=False, capture_output=True, text=True
    )
    assert failed.returncode == 1
    assert "42601" in failed.stderr
    assert "Traceback" not in failed.stderr
