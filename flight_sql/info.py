"""CommandGetSqlInfo: what each code's value is, and the dense union that carries the values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from flight_sql import schemas
from flight_sql.proto import flight_sql_pb2 as pb

CODES: Final = tuple(sorted(pb.SqlInfo.values()))
"""Every code the protocol names."""

STRING, BOOL, BIGINT, INT32, STRINGS, INT32_MAP = range(6)
"""The children of the union."""

_STRINGS: Final = frozenset((
    pb.FLIGHT_SQL_SERVER_NAME, pb.FLIGHT_SQL_SERVER_VERSION, pb.FLIGHT_SQL_SERVER_ARROW_VERSION,
    pb.FLIGHT_SQL_SERVER_SUBSTRAIT_MIN_VERSION, pb.FLIGHT_SQL_SERVER_SUBSTRAIT_MAX_VERSION,
    pb.SQL_IDENTIFIER_QUOTE_CHAR, pb.SQL_SEARCH_STRING_ESCAPE, pb.SQL_EXTRA_NAME_CHARACTERS, pb.SQL_SCHEMA_TERM,
    pb.SQL_PROCEDURE_TERM, pb.SQL_CATALOG_TERM,
))  # fmt: skip
# Enumerations of which one value holds: drivers for JDBC and ODBC read them as int64.
_ORDINALS: Final = frozenset((
    pb.SQL_IDENTIFIER_CASE, pb.SQL_QUOTED_IDENTIFIER_CASE, pb.SQL_NULL_ORDERING,
    pb.SQL_DEFAULT_TRANSACTION_ISOLATION,
))  # fmt: skip
_LIMITS: Final = frozenset(
    code for code in range(pb.SQL_MAX_BINARY_LITERAL_LENGTH, pb.SQL_MAX_USERNAME_LENGTH + 1)
    if code != pb.SQL_MAX_ROW_SIZE_INCLUDES_BLOBS
)  # fmt: skip
_INT32S: Final = frozenset((
    pb.FLIGHT_SQL_SERVER_TRANSACTION, pb.FLIGHT_SQL_SERVER_STATEMENT_TIMEOUT,
    pb.FLIGHT_SQL_SERVER_TRANSACTION_TIMEOUT, pb.SQL_SUPPORTED_GROUP_BY, pb.SQL_SUPPORTED_GRAMMAR,
    pb.SQL_ANSI92_SUPPORTED_LEVEL, pb.SQL_OUTER_JOINS_SUPPORT_LEVEL, pb.SQL_SCHEMAS_SUPPORTED_ACTIONS,
    pb.SQL_CATALOGS_SUPPORTED_ACTIONS, pb.SQL_SUPPORTED_POSITIONED_COMMANDS, pb.SQL_SUPPORTED_SUBQUERIES,
    pb.SQL_SUPPORTED_UNIONS, pb.SQL_SUPPORTED_TRANSACTIONS_ISOLATION_LEVELS, pb.SQL_SUPPORTED_RESULT_SET_TYPES,
    pb.SQL_SUPPORTED_CONCURRENCIES_FOR_RESULT_SET_UNSPECIFIED,
    pb.SQL_SUPPORTED_CONCURRENCIES_FOR_RESULT_SET_FORWARD_ONLY,
    pb.SQL_SUPPORTED_CONCURRENCIES_FOR_RESULT_SET_SCROLL_SENSITIVE,
    pb.SQL_SUPPORTED_CONCURRENCIES_FOR_RESULT_SET_SCROLL_INSENSITIVE,
))  # fmt: skip
_LISTS: Final = frozenset((
    pb.SQL_KEYWORDS, pb.SQL_NUMERIC_FUNCTIONS, pb.SQL_STRING_FUNCTIONS, pb.SQL_SYSTEM_FUNCTIONS,
    pb.SQL_DATETIME_FUNCTIONS,
))  # fmt: skip


def child_of(code: int) -> int:
    """Return which child of the union holds a code's value; what has no kind of its own is a yes or no."""
    kinds = ((_STRINGS, STRING), (_ORDINALS | _LIMITS, BIGINT), (_INT32S, INT32), (_LISTS, STRINGS))
    for codes, child in kinds:
        if code in codes:
            return child
    return INT32_MAP if code == pb.SQL_SUPPORTS_CONVERT else BOOL


def bits(*values: int) -> int:
    """Return the bit mask of some values of an enumeration."""
    return sum(1 << value for value in set(values))


def sql_info(known: Mapping[int, Any], wanted: Sequence[int] = ()) -> pa.Table:
    """Make the result of CommandGetSqlInfo.

    Parameters
    ----------
    known : mapping of int to value
        What the server says; a value has the type of its code's child.
    wanted : sequence of int
        Codes asked for, each once; none for all.  Codes the server says nothing about are left out.
    """
    codes = [code for code in dict.fromkeys(wanted or sorted(known)) if code in known]
    union = schemas.SQL_INFO_VALUE
    children: list[list[Any]] = [[] for _ in range(union.num_fields)]
    types, offsets = [], []
    for code in codes:
        child = child_of(code)
        types.append(child)
        offsets.append(len(children[child]))
        children[child].append(known[code])
    value = pa.Array.from_buffers(
        union,
        len(codes),
        [None, pa.array(types, pa.int8()).buffers()[1], pa.array(offsets, pa.int32()).buffers()[1]],
        children=[pa.array(values, union.field(index).type) for index, values in enumerate(children)],
    )
    return pa.Table.from_arrays([pa.array(codes, pa.uint32()), value], schema=schemas.SQL_INFO)
