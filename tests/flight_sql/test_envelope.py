"""google.protobuf.Any: what is recognised, and what is refused."""

from __future__ import annotations

import pytest
from google.protobuf.any_pb2 import Any
from hypothesis import given
from hypothesis import strategies as st

from flight_sql import envelope
from flight_sql.errors import MalformedError
from flight_sql.proto import flight_sql_pb2 as pb


def test_round_trip() -> None:
    command = pb.CommandStatementQuery(query="select 1")
    packed = envelope.unpack(envelope.pack(command))
    assert packed.type_url == "type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery"
    assert packed.Is(pb.CommandStatementQuery.DESCRIPTOR)
    assert envelope.parse(pb.CommandStatementQuery, packed.value) == command


def test_what_is_recognised() -> None:
    assert envelope.is_packed(envelope.pack(pb.CommandGetCatalogs()))
    long_name = Any(type_url=envelope.TYPE_PREFIX + "x" * 300, value=b"v")
    assert envelope.is_packed(long_name.SerializeToString())


@pytest.mark.parametrize(
    "raw",
    [b"", b"\n", b"select 1", b"\nselect 1", b'{"sql": "select 1"}', b"pgf1.abc", b"\n\x20type.googleapis.co"],
)
def test_what_is_not(raw: bytes) -> None:
    assert not envelope.is_packed(raw)


@given(st.binary(max_size=100))
def test_any_bytes_are_parsed_or_refused(raw: bytes) -> None:
    for read in (envelope.unpack, lambda raw: envelope.parse(pb.CommandGetTables, raw)):
        try:
            read(raw)
        except MalformedError:
            pass
