"""Options that change how a result travels, not what it says: compression, and plain types."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from adbc_driver_flightsql import dbapi
from pyarrow import flight

import pgflight
from tests.flight_server.sql.rpc import RawClient
from tests.helpers.relay import Relay
from tests.helpers.server import ServerProcess

SQL = "select g as n, repeat('pgflight ', 40) as t, null::int4 as z from generate_series(1, 20000) g"


def received(uri: str, compression: str | None, sql: str = SQL) -> pa.Table:
    options = {} if compression is None else {"compression": compression}
    with flight.connect(uri) as client:
        return client.do_get(flight.Ticket(json.dumps({"sql": sql, "options": options}).encode())).read_all()


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_compression_changes_nothing_but_the_bytes(server: ServerProcess, compression: str) -> None:
    assert received(server.uri, compression) == received(server.uri, None)
    empty = received(server.uri, compression, SQL.replace("20000", "0"))
    assert empty.num_rows == 0
    assert empty.schema == received(server.uri, None).schema


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_batches_are_small(server: ServerProcess, compression: str) -> None:
    """Counted on their way."""
    sizes = []
    for asked in ("none", compression):
        with Relay(server.uri) as relay:
            received(relay.uri, asked)
            sizes.append(relay.received)
    assert sizes[0] > 20_000 * 360
    assert sizes[1] < sizes[0] / 4


def test_compression_by_ticket_session_and_header(server: ServerProcess) -> None:
    with RawClient(server.uri) as client:
        asked = json.dumps({"sql": SQL, "options": {"compression": "zstd"}}).encode()
        [endpoint] = client.flight.get_flight_info(flight.FlightDescriptor.for_command(asked)).endpoints
        assert client.get(endpoint.ticket.ticket) == received(server.uri, None)
    with RawClient(server.uri, {"x-pgflight-compression": "lz4"}) as client:
        assert client.query(SQL).num_rows == 20_000
    with pgflight.connect(server.uri) as ours:
        assert ours.query(SQL, compression="lz4").to_arrow() == received(server.uri, None)
    arguments = {"adbc.flight.sql.rpc.call_header.x-pgflight-compression": "zstd"}
    with dbapi.connect(server.uri, db_kwargs=arguments, autocommit=True) as connection:
        with connection.cursor() as cursor:
            cursor.execute(SQL)
            assert cursor.fetch_arrow_table().num_rows == 20_000


def test_an_unknown_compression(server: ServerProcess) -> None:
    with pytest.raises(pa.ArrowInvalid, match="compression"):
        received(server.uri, "gzip")


def test_failures_in_compressed_streams(server: ServerProcess) -> None:
    with pytest.raises(pa.ArrowInvalid, match="22012") as caught:
        received(server.uri, "lz4", "select 1 / (50000 - g) as a from generate_series(1, 60000) g")
    assert "Traceback" not in str(caught.value)


def test_plain_types_by_session_and_by_header(server: ServerProcess) -> None:
    sql = "select '7d9fb5a6-7d5c-4b5e-9c40-5f3b6a0d7c11'::uuid as u, '{}'::jsonb as j"
    arguments = {"adbc.flight.sql.rpc.call_header.x-pgflight-profile": "plain"}
    with dbapi.connect(server.uri, db_kwargs=arguments, autocommit=True) as connection:
        assert _types(connection, sql) == ["fixed_size_binary[16]", "string"]
    session = {"adbc.flight.sql.rpc.with_cookie_middleware": "true"}
    with dbapi.connect(server.uri, db_kwargs=session, autocommit=True) as connection:
        assert _types(connection, sql) == ["extension<arrow.uuid>", "extension<arrow.json>"]
        connection.adbc_connection.set_options(**{"adbc.flight.sql.session.option.profile": "plain"})
        assert _types(connection, sql) == ["fixed_size_binary[16]", "string"]


def _types(connection: dbapi.Connection, sql: str) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return [str(field.type) for field in cursor.fetch_arrow_table().schema]
