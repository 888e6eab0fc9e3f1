"""What each row of the registry must survive: literals, and SQL that says what they are without our decoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

JSON = pa.json_(pa.string())
LONG = "lorem ipsum é日😀 " * 5000
SHORT_TEXTS = (
    "",
    " ",
    "a",
    "naïve",
    "Ωμέγα",
    "日本語",
    "😀👩‍👩‍👧‍👦",
    "tab\tnew\nline",
    "\\N",
    "NULL",
    "\x01\x7f",
    None,
)


def same(value: Any) -> Any:
    """The oracle's value is canonical already."""
    return value


def utf8(value: bytes) -> str:
    """The oracle gives the bytes of a text."""
    return bytes(value).decode()


def bits(value: bytes) -> int:
    """The oracle gives the bytes of a number."""
    return int.from_bytes(value, "big")


@dataclass(frozen=True)
class Case:
    """A type and its edges.

    Parameters
    ----------
    row : str
        The registry's row.
    ddl : str
        The type as SQL writes it.
    literals : tuple of (str or None)
        PostgreSQL's input.
    oracle : str
        SQL over column ``v`` that gives the canonical value.
    arrow : DataType
        The type expected, profile ``arrow``.
    convert : callable
        From the oracle's Python value to the canonical one.
    """

    row: str
    ddl: str
    literals: tuple[str | None, ...]
    oracle: str
    arrow: pa.DataType
    convert: Callable[[Any], Any] = same


def text(row: str, ddl: str, literals: tuple[str | None, ...], send: str = "textsend") -> Case:
    """A type whose bytes are its text."""
    return Case(row, ddl, literals, f"{send}(v)", pa.string(), utf8)


def cast(row: str, literals: tuple[str | None, ...], ddl: str | None = None) -> Case:
    """A type that PostgreSQL itself turns into text."""
    return Case(row, ddl or row, literals, "textsend(v::text)", pa.string(), utf8)


def reg(row: str, *literals: str) -> Case:
    """An alias of oid; beyond 2 ** 31 as well."""
    return Case(row, row, ("0", "1", "2147483648", "4294967295", *literals, None), "v::oid::int8", pa.uint32())


def unsigned(row: str, arrow: pa.DataType, literals: tuple[str | None, ...], oracle: str) -> Case:
    """Unsigned numbers that PostgreSQL shows as text."""
    return Case(row, row, literals, oracle, arrow, int)


DATES = ("4713-11-24 BC", "0001-12-31 BC", "0001-01-01", "1969-12-31", "1970-01-01", "1999-12-31", "2000-01-01",
         "2000-02-29", "2024-02-29", "9999-12-31", "5874897-12-31", None)  # fmt: skip
TIMES = ("4713-11-24 00:00:00 BC", "0001-01-01 00:00:00 BC", "1969-12-31 23:59:59.999999", "1970-01-01 00:00:00",
         "1999-12-31 23:59:59.999999", "2000-01-01 00:00:00.000001", "9999-12-31 23:59:59.999999",
         "294247-01-10 04:00:54.775807", None)  # fmt: skip
OIDS = ("0", "1", "2147483647", "2147483648", "4294967295", None)
MICROS = "(extract(epoch from v) * 1000000)::numeric"
# extract(epoch) of a far year is rounded
TIMESTAMP_MICROS = "(v::date - date '1970-01-01') * 86400000000::numeric + extract(epoch from v::time) * 1000000"
FLOATS = ("0", "-0", "1", "-1.5", "NaN", "Infinity", "-Infinity", None)
INTERVALS = ("0", "1 mon", "-1 mon", "178956970 years 7 mons", "-178956970 years -8 mons", "2147483647 days",
             "-2147483648 days", "0.000001", "-00:00:00.000001", "2562047:47:16.854775", "-2562047:47:16.854775",
             "1 year -1 day 00:00:01", "-1 mon 1 day -00:00:00.000001", None)  # fmt: skip
INTERVAL_PARTS = (
    "case when v is not null then array[extract(year from v) * 12 + extract(month from v), extract(day from v),"
    " (extract(hour from v) * 3600000000 + extract(minute from v) * 60000000 + extract(microseconds from v)) * 1000]"
    " end"
)
JSONS = ("null", "{}", "[]", '"é😀"', '{"a": [1, 2.50, "é"], "b": {"c": null}}', "1e10", " 1 ", None)

CASES: tuple[Case, ...] = (
    Case("bool", "bool", ("true", "false", None, "true"), "v", pa.bool_()),
    Case("bytea", "bytea", ("\\x", "\\x00", "\\xff00", "\\x5c4e", "\\x50474f434f50590aff0d0a00", "\\x" + "5a00" * 70_000,
                            None), "v", pa.binary(), bytes),
    cast("char", ("", "a", "~", " ", "\\200", "\\377", None), '"char"'),
    text("name", "name", ("", "a", "x" * 63, "é" * 31, None), "namesend"),
    Case("int8", "int8", ("-9223372036854775808", "-1", "0", "1", "4294967296", "9223372036854775807", None), "v",
         pa.int64()),
    Case("int2", "int2", ("-32768", "-1", "0", "1", "32767", None), "v", pa.int16()),
    Case("int4", "int4", ("-2147483648", "-1", "0", "1", "2147483647", None), "v", pa.int32()),
    Case("int4", "scratch.positive", ("1", "2147483647", None), "v", pa.int32()),
    reg("regproc", "pg_catalog.now"),
    text("text", "text", (*SHORT_TEXTS, LONG)),
    text("text", "scratch.greeting", ("hello", None)),
    Case("oid", "oid", OIDS, "v::int8", pa.uint32()),
    cast("tid", ("(0,0)", "(4294967295,65535)", None)),
    unsigned("xid", pa.uint32(), OIDS, "v::text"),
    unsigned("cid", pa.uint32(), OIDS, "v::text"),
    Case("json", "json", (*JSONS, '{"a":1,"a":2}', '{ "b" :\n1 }'), "textsend(v::text)", JSON, utf8),
    Case("jsonb", "jsonb", JSONS, "textsend(v::text)", JSON, utf8),
    Case("jsonpath", "jsonpath", ("$", '$."é"[*] ? (@ > 1)', None), "textsend(v::text)", pa.string(), utf8),
    cast("point", ("(0,0)", "(-1.5,1e308)", "(NaN,Infinity)", None)),
    cast("lseg", ("[(0,0),(1,1)]", None)),
    cast("path", ("((0,0),(1,1),(1,0))", "[(0,0)]", None)),
    cast("box", ("(2,2),(0,0)", None)),
    cast("polygon", ("((0,0),(1,1),(1,0))", None)),
    cast("line", ("{1,-1,0}", None)),
    cast("circle", ("<(0,0),1>", None)),
    cast("cidr", ("0.0.0.0/0", "10.0.0.0/8", "::/0", "2001:db8::/32", None)),
    cast("inet", ("0.0.0.0/32", "192.168.1.5/24", "255.255.255.255", "::", "fe80::1/10", None)),
    cast("macaddr", ("00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", None)),
    cast("macaddr8", ("00:00:00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff:ff:ff", None)),
    cast("money", ("-92233720368547758.08", "-0.01", "0", "92233720368547758.07", None)),
    Case("float4", "float4", (*FLOATS, "1.17549435e-38", "1e-45", "-3.4028235e38"), "float4send(v)", pa.float32(), bits),
    Case("float8", "float8", (*FLOATS, "2.2250738585072014e-308", "5e-324", "-1.7976931348623157e308"),
         "float8send(v)", pa.float64(), bits),
    text("bpchar", "char(5)", ("", "a", "ab   ", "abcde", "日本", None), "bpcharsend"),
    text("bpchar", "bpchar", ("", "a  ", None), "bpcharsend"),
    text("varchar", "varchar(20)", ("", "a", "a  ", "é" * 20, None), "varcharsend"),
    text("varchar", "varchar", (*SHORT_TEXTS, LONG), "varcharsend"),
    Case("date", "date", DATES, "v - date '1970-01-01'", pa.date32()),
    Case("time", "time", ("00:00:00", "00:00:00.000001", "12:34:56.789012", "23:59:59.999999", None), MICROS,
         pa.time64("us"), int),
    Case("time", "time(0)", ("00:00:00", "23:59:59", None), MICROS, pa.time64("us"), int),
    Case("timestamp", "timestamp", TIMES, TIMESTAMP_MICROS, pa.timestamp("us"), int),
    Case("timestamp", "timestamp(3)", ("1969-12-31 23:59:59.999", None), MICROS, pa.timestamp("us"), int),
    Case("timestamptz", "timestamptz", tuple(value and value.replace(" BC", "") + "+00" + " BC" * ("BC" in value)
                                             for value in TIMES), TIMESTAMP_MICROS.replace("v::", "(v at time zone 'UTC')::"),
         pa.timestamp("us", "UTC"), int),
    Case("timestamptz", "timestamptz", ("2000-01-01 00:00:00+05:30", "1969-12-31 19:00:00-05", None), MICROS,
         pa.timestamp("us", "UTC"), int),
    Case("interval", "interval", INTERVALS, INTERVAL_PARTS, pa.month_day_nano_interval(),
         lambda parts: tuple(int(part) for part in parts)),
    cast("timetz", ("00:00:00+15:59:59", "12:34:56.789012+00", "24:00:00-15:59:59", None)),
    cast("bit", ("000000000", "100000001", None), "bit(9)"),
    cast("varbit", ("", "1", "01010101", "010101011", None)),
    Case("numeric", "numeric(10,2)", ("0", "0.01", "-0.01", "99999999.99", "-99999999.99", "10000", "0.10", None),
         "v::text", pa.decimal128(10, 2)),
    Case("numeric", "scratch.price", ("0.01", "99999999.99", None), "v::text", pa.decimal128(10, 2)),
    Case("refcursor", "refcursor", ("", "a cursor", None), "textsend(v::text)", pa.string(), utf8),
    reg("regprocedure", "pg_catalog.now()"),
    reg("regoper"),
    reg("regoperator", "+(int4,int4)"),
    reg("regclass", "pg_catalog.pg_class"),
    reg("regtype", "int4"),
    reg("regconfig", "english"),
    reg("regdictionary", "simple"),
    reg("regnamespace", "pg_catalog"),
    reg("regrole"),
    reg("regcollation", '"C"'),
    Case("uuid", "uuid", ("00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff",
                          "00112233-4455-6677-8899-aabbccddeeff", None), "uuid_send(v)", pa.uuid(), bytes),
    cast("txid_snapshot", ("10:20:10,14,15", None)),
    cast("pg_snapshot", ("10:20:10,14,15", "1:1:", None)),
    unsigned("pg_lsn", pa.uint64(), ("0/0", "1/2", "80000000/0", "FFFFFFFF/FFFFFFFF", None), "v - '0/0'::pg_lsn"),
    unsigned("xid8", pa.uint64(), ("0", "4294967296", "9223372036854775808", "18446744073709551615", None), "v::text"),
    cast("tsvector", ("", "'a':1A 'naïve':2,3", None)),
    cast("tsquery", ("", "'a' & !'b' <2> 'c'", None)),
    text("citext", "citext", SHORT_TEXTS, "citextsend"),
    text("enum", "scratch.mood", ("sad", "", "日本 'quoted'", None), "enum_send"),
    Case("ltree", "ltree", ("", "a.b_c.D1", None), "textsend(v::text)", pa.string(), utf8),
    Case("lquery", "lquery", ("a.*", None), "textsend(v::text)", pa.string(), utf8),
    Case("ltxtquery", "ltxtquery", ("a & b*", None), "textsend(v::text)", pa.string(), utf8),
    cast("(text)", ("=r/postgres", None), "aclitem"),
    cast("(text)", ("{1:1.5,3:-2}/5", None), "sparsevec"),
    cast("(text)", ("1", "NaN", "-0.10", None), "numeric"),
    cast("(text)", ("[1,2.5)", "empty", None), "numrange"),
)  # fmt: skip
"""Types that a table can hold."""

QUERIES: tuple[tuple[str, str, pa.DataType, list[Any]], ...] = (
    ("cstring", "select int4out(n) as v from (values (-1), (null), (7)) as t(n)", pa.string(), ["-1", None, "7"]),
    ("void", "select pg_sleep(0) as v from generate_series(1, 3)", pa.string(), ["", "", ""]),
)
"""Types that only a statement can return: (row, SQL, Arrow type, values)."""

BY_HAND: tuple[tuple[str, list[bytes | None], pa.DataType, list[Any]], ...] = (
    ("pg_node_tree", [b"({VAR})", None], pa.string(), ["({VAR})", None]),
    ("unknown", [b"", None, "é".encode()], pa.string(), ["", None, "é"]),
    ("regdatabase", [b"\0\0\0\1", None, b"\xff\xff\xff\xff"], pa.uint32(), [1, None, 4294967295]),
)
"""Types that PostgreSQL 18 does not send: (row, fields, Arrow type, values)."""
