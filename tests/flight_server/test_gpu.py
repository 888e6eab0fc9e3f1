"""The server decodes on a GPU what it decodes on the CPU, for clients that do not know."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psycopg
import pyarrow as pa
import pytest
from pyarrow import flight

from demo.lineorder import LINEORDER
from demo.postgres import EmbeddedPostgres
from demo.synthetic import NULLS, TYPES, WIDE
from tests.helpers.server import ServerProcess

pytest.importorskip("cupy", reason="CuPy is not installed")
from kernels.backend import gpus_present

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not gpus_present(), reason="no GPU")]
ROWS = {"lineorder": 300_000, "wide": 20_000, "nulls": 50_000, "types": 20_000}


@pytest.fixture(scope="module")
def server(postgres: EmbeddedPostgres) -> Iterator[ServerProcess]:
    for dataset in (LINEORDER, WIDE, NULLS, TYPES):
        dataset.fill(postgres.dsn(), ROWS[dataset.table])
    with ServerProcess(postgres.dsn(), "--decode", "gpu", "--block-mib", "8", "--pinned-blocks", "32") as process:
        yield process


@pytest.fixture
def client(server: ServerProcess) -> Iterator[flight.FlightClient]:
    with flight.connect(server.uri) as connected:
        yield connected


def read(client: flight.FlightClient, table: str, **options: object) -> pa.Table:
    options = {"infinity": "null", "numeric": "string"} | options if table == "types" else options
    command = json.dumps({"table": table, "options": options}).encode()
    result = client.do_get(flight.Ticket(command)).read_all()
    result.validate(full=True)
    return result


def bits(table: pa.Table) -> pa.Table:
    """Return a table with its floats as integers: NaN equals NaN then, and -0 is not 0."""
    whole = table.combine_chunks()
    for index, field in enumerate(whole.schema):
        if pa.types.is_floating(field.type):
            integers = pa.int32() if field.type == pa.float32() else pa.int64()
            whole = whole.set_column(index, field.name, whole[index].chunk(0).view(integers))
    return whole


@pytest.mark.parametrize(
    "options", [{"streams": 1}, {"streams": 4, "ordered": True}, {"streams": 1, "framing": "copy"}], ids=str
)
@pytest.mark.parametrize("table", ROWS)
def test_equal(client: flight.FlightClient, table: str, options: dict[str, object]) -> None:
    on_gpu = read(client, table, **options)
    on_cpu = read(client, table, decode="cpu", **options)
    assert on_gpu.num_rows == ROWS[table]
    assert on_gpu.schema.equals(on_cpu.schema, check_metadata=True)
    assert bits(on_gpu).equals(bits(on_cpu))


NESTED = """select g as id, case when g % 3 <> 0 then array[g, null, 3] end as numbers,
    array(select repeat('é', i) from generate_series(1, g % 5) i) as texts,
    array[row(g, 'x', array[g * 0.5::float8])::on_gpu.part, null] as parts, int8range(g, g + 1) as span,
    array(select g * i from generate_series(1, 16) i)::vector(16) as embedding, g::text as last
    from generate_series(1, 100000) g"""


@pytest.fixture
def nested_types(postgres: EmbeddedPostgres) -> Iterator[None]:
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        connection.execute("create schema on_gpu; create type on_gpu.part as (i int8, t text, f float8[])")
        yield
        connection.execute("drop schema on_gpu cascade")


@pytest.mark.usefixtures("nested_types")
def test_nested_columns(client: flight.FlightClient) -> None:
    tables = []
    for decode in ("gpu", "cpu"):
        command = json.dumps({"sql": NESTED, "options": {"decode": decode}}).encode()
        tables.append(client.do_get(flight.Ticket(command)).read_all().combine_chunks())
        tables[-1].validate(full=True)
    assert tables[0].schema.field("embedding").type == pa.list_(pa.float32(), 16)
    assert tables[0].equals(tables[1])


def test_small_and_empty(client: flight.FlightClient) -> None:
    for sql, rows in (("select 1 as a, 'x' as b", 1), ("select 1 as a where false", 0)):
        assert client.do_get(flight.Ticket(sql.encode())).read_all().num_rows == rows


def test_rows_larger_than_a_block(client: flight.FlightClient) -> None:
    sql = "select g, repeat('d', g * 1000000) as t from generate_series(1, 20) g"
    table = client.do_get(flight.Ticket(sql.encode())).read_all()
    assert [len(text) for text in table["t"].to_pylist()] == [number * 1_000_000 for number in range(1, 21)]


def test_errors_name_row_and_column(client: flight.FlightClient) -> None:
    sql = b"select g, case when g = 54321 then 'infinity'::date else '2024-01-01' end as day from generate_series(1, 99999) g"
    with pytest.raises(pa.ArrowInvalid, match="row 54320, column 'day'"):
        client.do_get(flight.Ticket(sql)).read_all()


def test_cancelled_reads_leave_nothing(client: flight.FlightClient, server: ServerProcess) -> None:
    for _ in range(30):
        reader = client.do_get(flight.Ticket(b"select generate_series(1, 1000000000) as g, repeat('x', 100) as t"))
        reader.read_chunk()
        reader.cancel()
    assert read(client, "lineorder").num_rows == ROWS["lineorder"]
