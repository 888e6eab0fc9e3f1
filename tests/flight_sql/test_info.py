"""CommandGetSqlInfo: each code in its child of the union."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from flight_sql import schemas
from flight_sql.info import BIGINT, BOOL, CODES, INT32, INT32_MAP, STRING, STRINGS, bits, child_of, sql_info
from flight_sql.proto import flight_sql_pb2 as pb

SAMPLES: dict[int, Any] = {
    STRING: "text", BOOL: True, BIGINT: 2**40, INT32: 7, STRINGS: ["a", "b"], INT32_MAP: {0: [1, 2], 7: []},
}  # fmt: skip
KNOWN = {code: SAMPLES[child_of(code)] for code in CODES}


def test_every_code_has_its_child() -> None:
    """The kinds as the published descriptions, and the drivers for JDBC and ODBC, have them."""
    assert len(CODES) == 91
    for code, child in (
        (pb.FLIGHT_SQL_SERVER_NAME, STRING), (pb.FLIGHT_SQL_SERVER_READ_ONLY, BOOL),
        (pb.FLIGHT_SQL_SERVER_TRANSACTION, INT32), (pb.FLIGHT_SQL_SERVER_STATEMENT_TIMEOUT, INT32),
        (pb.SQL_IDENTIFIER_CASE, BIGINT), (pb.SQL_KEYWORDS, STRINGS), (pb.SQL_SUPPORTS_CONVERT, INT32_MAP),
        (pb.SQL_SUPPORTED_GROUP_BY, INT32), (pb.SQL_OUTER_JOINS_SUPPORT_LEVEL, INT32),
        (pb.SQL_MAX_BINARY_LITERAL_LENGTH, BIGINT), (pb.SQL_MAX_ROW_SIZE_INCLUDES_BLOBS, BOOL),
        (pb.SQL_MAX_USERNAME_LENGTH, BIGINT), (pb.SQL_DEFAULT_TRANSACTION_ISOLATION, BIGINT),
        (pb.SQL_SUPPORTED_RESULT_SET_TYPES, INT32), (pb.SQL_SAVEPOINTS_SUPPORTED, BOOL),
    ):  # fmt: skip
        assert child_of(code) == child, pb.SqlInfo.Name(code)


def test_no_code_asked_for_means_all() -> None:
    table = sql_info(KNOWN)
    table.validate(full=True)
    assert table.schema.equals(schemas.SQL_INFO, check_metadata=True)
    assert table["info_name"].to_pylist() == list(CODES)
    assert table["value"].to_pylist() == [
        list(value.items()) if isinstance(value, dict) else value for value in KNOWN.values()
    ]


def test_codes_asked_for() -> None:
    """In the order asked for, each once; what is unknown is left out, so that old clients and new servers agree."""
    table = sql_info(KNOWN, [pb.SQL_KEYWORDS, 0, 12_345, pb.SQL_KEYWORDS])
    assert table.to_pydict() == {"info_name": [pb.SQL_KEYWORDS, 0], "value": [["a", "b"], "text"]}
    assert sql_info(KNOWN, [12_345]).num_rows == 0


def test_the_union_travels(tmp_path: object) -> None:
    table = sql_info(KNOWN)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        for batch in schemas.batches(table, 200):
            writer.write_batch(batch)
    assert pa.ipc.open_stream(sink.getvalue()).read_all().to_pylist() == table.to_pylist()


@pytest.mark.parametrize(("values", "mask"), [((), 0), ((0,), 1), ((1, 2), 6), ((2, 2), 4)])
def test_bits(values: tuple[int, ...], mask: int) -> None:
    assert bits(*values) == mask
