"""THE table: one row per PostgreSQL type, its Arrow type per profile and its decode shape.

Schema, kernels, documentation and tests iterate this table.  A new type is one row and one golden pair.
Sources of the formats: the types' send functions, src/backend/utils/adt/*.c in PostgreSQL 18.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from kernels import layout
from kernels.wire import DAY_MICROS, POSTGRES_EPOCH_DAYS, POSTGRES_EPOCH_MICROS

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1
INT32_MAX: Final = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PgType:
    """How one PostgreSQL type becomes Arrow.

    Parameters
    ----------
    name : str
        Catalog name.
    oid : int or None
        OID of a built-in; None for extension types, which are found by `send`.
    send : str or None
        Name of the send function of an extension type: it is what fixes the bytes.
    shape : int
        One of the shapes of kernels/layout.py.
    arrow : DataType
        Arrow type in every profile, or the storage where `extension` is given.
    extension : DataType or None
        Extension type over `arrow` in profile ``arrow``.
    width, bias, low, high, infinite, prefix, utf8
        Parameters of the shape, as in kernels/layout.py.
    cast : str or None
        SQL type to cast to in the query, where PostgreSQL's own conversion is the exact and canonical form.
    note : str
        For the documentation.
    """

    name: str
    oid: int | None
    arrow: pa.DataType
    shape: int = layout.VARLEN
    send: str | None = None
    extension: pa.DataType | None = None
    width: int = 0
    bias: int = 0
    low: int = INT64_MIN
    high: int = INT64_MAX
    infinite: bool = False
    prefix: int = -1
    utf8: bool = False
    cast: str | None = None
    note: str = ""


def _number(name: str, oid: int, arrow: pa.DataType, note: str = "") -> PgType:
    return PgType(name=name, oid=oid, shape=layout.FIXED, arrow=arrow, width=arrow.bit_width // 8, note=note)


def _text(name: str, oid: int | None, note: str = "", send: str | None = None) -> PgType:
    return PgType(name=name, oid=oid, send=send, arrow=pa.string(), utf8=True, note=note)


def _cast(name: str, oid: int, note: str = "PostgreSQL's text form") -> PgType:
    return PgType(name=name, oid=oid, arrow=pa.string(), utf8=True, cast="text", note=note)


def _timestamp(name: str, oid: int, arrow: pa.DataType) -> PgType:
    # PostgreSQL reaches 294276 AD, Arrow's int64 microseconds from 1970 only 294247 AD.
    return PgType(
        name=name, oid=oid, shape=layout.FIXED, arrow=arrow, width=8, bias=POSTGRES_EPOCH_MICROS,
        low=INT64_MIN + 1, high=INT64_MAX - POSTGRES_EPOCH_MICROS, infinite=True,
        note="infinity: see option infinity; beyond 294247 AD: an error",
    )  # fmt: skip


JSON: Final = pa.json_(pa.string())

# fmt: off
ROWS: Final[tuple[PgType, ...]] = (
    PgType(name="bool", oid=16, shape=layout.BOOL, arrow=pa.bool_()),
    PgType(name="bytea", oid=17, arrow=pa.binary()),
    _cast("char", 18, 'the one-byte type "char"; bytes above 127 as PostgreSQL escapes them'),
    _text("name", 19),
    _number("int8", 20, pa.int64()),
    _number("int2", 21, pa.int16()),
    _number("int4", 23, pa.int32()),
    _number("regproc", 24, pa.uint32()),
    _text("text", 25),
    _number("oid", 26, pa.uint32()),
    _cast("tid", 27),
    _number("xid", 28, pa.uint32()),
    _number("cid", 29, pa.uint32()),
    _text("pg_node_tree", 194),
    PgType(name="json", oid=114, arrow=pa.string(), extension=JSON, utf8=True),
    _text("xml", 142),
    _cast("point", 600), _cast("lseg", 601), _cast("path", 602), _cast("box", 603),
    _cast("polygon", 604), _cast("line", 628),
    _cast("cidr", 650),
    _number("float4", 700, pa.float32()),
    _number("float8", 701, pa.float64()),
    _text("unknown", 705),
    _cast("circle", 718),
    _cast("macaddr8", 774), _cast("money", 790), _cast("macaddr", 829), _cast("inet", 869),
    _text("bpchar", 1042, "blank padding is kept"),
    _text("varchar", 1043),
    PgType(name="date", oid=1082, shape=layout.FIXED, arrow=pa.date32(), width=4, bias=POSTGRES_EPOCH_DAYS,
           low=-INT32_MAX, high=INT32_MAX - POSTGRES_EPOCH_DAYS, infinite=True,
           note="infinity: see option infinity"),
    PgType(name="time", oid=1083, shape=layout.FIXED, arrow=pa.time64("us"), width=8, low=0, high=DAY_MICROS - 1,
           note="24:00:00 is outside Arrow's time64: an error"),
    _timestamp("timestamp", 1114, pa.timestamp("us")),
    _timestamp("timestamptz", 1184, pa.timestamp("us", "UTC")),
    PgType(name="interval", oid=1186, shape=layout.INTERVAL, arrow=pa.month_day_nano_interval(), width=16,
           low=-(INT64_MAX // 1000), high=INT64_MAX // 1000, infinite=True,
           note="more than 292 years of microseconds: an error"),
    _cast("timetz", 1266),
    _cast("bit", 1560), _cast("varbit", 1562),
    PgType(name="numeric", oid=1700, shape=layout.NUMERIC, arrow=pa.decimal128(38, 0), width=16,
           note="decimal128(p, s), decimal256 for p > 38; see option numeric"),
    _text("refcursor", 1790),
    *(_number(name, oid, pa.uint32()) for name, oid in (
        ("regprocedure", 2202), ("regoper", 2203), ("regoperator", 2204), ("regclass", 2205), ("regtype", 2206),
        ("regconfig", 3734), ("regdictionary", 3769), ("regnamespace", 4089), ("regrole", 4096),
        ("regcollation", 4191), ("regdatabase", 8326))),
    _text("cstring", 2275),
    _text("void", 2278, "empty"),
    PgType(name="uuid", oid=2950, shape=layout.BYTES, arrow=pa.binary(16), extension=pa.uuid(), width=16),
    _cast("txid_snapshot", 2970),
    _number("pg_lsn", 3220, pa.uint64()),
    _cast("tsvector", 3614), _cast("tsquery", 3615),
    PgType(name="jsonb", oid=3802, arrow=pa.string(), extension=JSON, prefix=1, utf8=True),
    PgType(name="jsonpath", oid=4072, arrow=pa.string(), prefix=1, utf8=True),
    _cast("pg_snapshot", 5038),
    _number("xid8", 5069, pa.uint64()),
    _text("citext", None, send="citextsend"),
    PgType(name="ltree", oid=None, send="ltree_send", arrow=pa.string(), prefix=1, utf8=True),
    PgType(name="lquery", oid=None, send="lquery_send", arrow=pa.string(), prefix=1, utf8=True),
    PgType(name="ltxtquery", oid=None, send="ltxtq_send", arrow=pa.string(), prefix=1, utf8=True),
)
# fmt: on

NESTED: Final[dict[int, str]] = {
    layout.LIST: "array",
    layout.STRUCT: "composite",
    layout.RANGE: "range",
    layout.MULTIRANGE: "multirange",
    layout.MAP: "hstore",
    layout.ARRAY: "array of any dimensions",
    layout.HEADS: "dimensions",
    layout.ELEMENTS: "elements",
}
"""Shapes whose Arrow type is made of their parts'."""
VECTORS: Final[dict[str, tuple[pa.DataType, int]]] = {
    "vector_send": (pa.float32(), 4),
    "halfvec_send": (pa.float16(), 2),
}
"""pgvector's types of numbers: element and its bytes, by send function."""
TEXT_SENDS: Final = frozenset({None, "sparsevec_send", "cube_send"})
"""Types that are text: those without a send function, and those whose text says all."""

ENUM: Final = _text("enum", None, "the label")
AS_TEXT: Final = PgType(
    name="(text)", oid=None, arrow=pa.string(), utf8=True, cast="text",
    note="no send function, or a nested type with such a part: PostgreSQL's text form",
)  # fmt: skip
UNKNOWN: Final = PgType(
    name="(anything else)", oid=None, arrow=pa.binary(),
    note="the bytes of the send function, extension arrow.opaque",
)  # fmt: skip

BY_OID: Final = {row.oid: row for row in ROWS if row.oid is not None}
BY_SEND: Final = {row.send: row for row in ROWS if row.send is not None}
