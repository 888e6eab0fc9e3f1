"""How many of PostgreSQL's types arrive exactly: ``python -m tests.kernels.coverage [DSN]``.

For every type of the catalog that has a binary send function: its values, NULL, and its array, read by us, written
back as PostgreSQL's input, and compared with the originals by ``::text``; of types without input, what the catalog
holds.  Types whose values cannot be had are listed with the reason.  Without a DSN the embedded server is started.  The values are those of `type_cases` and a few more; far dates, which Python does not know, are left to
test_types.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import psycopg
import pyarrow as pa
from rich.console import Console

from demo.postgres import EmbeddedPostgres
from kernels.errors import PgflightError
from kernels.type_table import UNPROVEN
from tests.helpers.reading import read
from tests.kernels.type_cases import CASES
from transport.memory import RegionPool
from transport.pool import ConnectionPool

TYPES_SQL = """
select pg_catalog.format_type(t.oid, null), t.typname::text, t.typarray <> 0
from pg_catalog.pg_type t left join pg_catalog.pg_class c on c.oid = t.typrelid
where t.typsend <> 0 and t.typisdefined and (t.typtype <> 'c' or c.relkind = 'c') and t.typtype <> 'p'
  and not exists (select from pg_catalog.pg_type e where e.typarray = t.oid)
order by 1
"""
MORE: dict[str, tuple[str, ...]] = {
    "int2vector": ("1 2 -3", ""), "oidvector": ("1 4294967295", ""),
    "int4range": ("[1,5)", "empty", "(,)", "(,7)"), "int8range": ("[1,5)", "empty", "[2,)"),
    "numrange": ("[1.50,2]", "empty"), "daterange": ("[2020-01-01,2020-02-01)", "(,2020-01-01)"),
    "tsrange": ('["2020-01-01 00:00:00","2020-01-02 00:00:00.000001"]', "empty"),
    "tstzrange": ('["2020-01-01 00:00:00+00",)', "empty"),
    "int4multirange": ("{[1,3),[5,)}", "{}"), "int8multirange": ("{[1,3)}", "{}"), "nummultirange": ("{[1.5,2)}",),
    "datemultirange": ("{[2020-01-01,2020-02-01)}",), "tsmultirange": ("{[2020-01-01,2020-02-01)}",),
    "tstzmultirange": ("{[2020-01-01 00:00+00,2020-02-01 00:00+00)}",),
    "xml": ("<a>é</a>",), "regdatabase": ("postgres",), "interval": ("1 year -1 day 00:00:01.5", "-1 mon 1 day"),
    "date": ("2000-02-29", "1969-12-31"), "timestamp": ("1999-12-31 23:59:59.999999",),
    "timestamptz": ("2000-01-01 00:00:00+05:30",), "vector": ("[1,2.5,-3]", "[0]"), "halfvec": ("[1,2.5]",),
    "hstore": ("", 'a=>1, "b c"=>NULL'), "cube": ("(1,2),(3,4)",), "lo": ("7",), "cardinal_number": ("3",),
    "character_data": ("a",), "sql_identifier": ("a b",), "time_stamp": ("2020-01-01 00:00:00.12+00",),
    "yes_or_no": ("YES",), "numeric": ("1.50", "NaN", "-Infinity"),
    "bit": ("1", "0"),
    "regclass": ("pg_catalog.pg_class",),
}  # fmt: skip
"""Values by type name, instead of those of the cases."""
NOT_BUILT = "0A000"
"""SQLSTATE of what PostgreSQL was built without."""
FACTS_SQL = """
drop table if exists coverage_facts;
create table coverage_facts as select i % 10 as a, i % 5 as b, i % 3 as c from generate_series(1, 1000) i;
alter table coverage_facts alter a set default 1 + length('é');
create statistics coverage_statistics (ndistinct, dependencies, mcv) on a, b, c from coverage_facts;
analyze coverage_facts
"""
STATISTICS = (
    "pg_statistic_ext_data d join pg_statistic_ext s on s.oid = d.stxoid and stxname = 'coverage_statistics'"
)
WITHOUT_INPUT = {
    "pg_node_tree": ("adbin", "pg_attrdef where adrelid = 'coverage_facts'::regclass", "textsend({}::text)"),
    "pg_ndistinct": ("stxdndistinct", STATISTICS, "pg_ndistinct_send({})"),
    "pg_dependencies": ("stxddependencies", STATISTICS, "pg_dependencies_send({})"),
    "pg_mcv_list": ("stxdmcv", STATISTICS, "pg_mcv_list_send({})"),
}
"""Types that only PostgreSQL itself writes: column, where from, and what the bytes are."""


def literals() -> dict[str, tuple[str, ...]]:
    """Return values of each type whose name has any."""
    found: dict[str, tuple[str, ...]] = {}
    for case in CASES:
        if "(" not in case.ddl:
            found.setdefault(case.ddl.strip('"'), tuple(value for value in case.literals if value is not None))
    return found | {"bpchar": ("a  ", "")} | MORE


def written(value: Any, kind: pa.DataType, name: str) -> str | None:
    """Write a value as the input of PostgreSQL's type `name`."""
    if value is None:
        return None
    if pa.types.is_struct(kind):
        flags, bound = value["flags"], kind.field("lower").type
        ends = [
            "" if value[end] is None else f'"{written(value[end], bound, name)}"' for end in ("lower", "upper")
        ]
        return "empty" if flags & 1 else f"{'[' if flags & 2 else '('}{','.join(ends)}{']' if flags & 4 else ')'}"
    if pa.types.is_map(kind):
        return ", ".join(f"{quoted(key)}=>{'NULL' if item is None else quoted(item)}" for key, item in value)
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        element = name.removesuffix("[]")
        parts = [written(part, kind.value_type, element) for part in value]
        if name.endswith("multirange"):  # a multirange
            return "{" + ",".join(map(str, parts)) + "}"
        if name in ("vector", "halfvec"):
            return "[" + ",".join(map(str, parts)) + "]"
        if name == element:
            return " ".join(map(str, parts))
        delimiter = ";" if element == "box" else ","
        return "{" + delimiter.join("NULL" if part is None else quoted(part) for part in parts) + "}"
    if pa.types.is_interval(kind):
        return f"{value.months} mons {value.days} days {value.nanoseconds // 1000} microseconds"
    if name == "pg_lsn":
        return f"{value >> 32:X}/{value & 0xFFFFFFFF:X}"
    return "\\x" + value.hex() if isinstance(value, bytes) else str(value)


def quoted(text: str) -> str:
    """Quote a part of an array or of hstore."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def judge(connection: Any, pool: ConnectionPool, memory: RegionPool, kind: str, values: tuple[str, ...]) -> str:
    """Read values of a type, NULL included; return what is wrong, or nothing."""
    rows = connection.execute(
        "select coalesce(string_agg(format('(%%s,%%L::%%s)', n, v, %s::text), ',' order by n), '') from unnest(%s::text[])"
        " with ordinality as given(v, n)", (kind, [*values, None])
    ).fetchone()[0]  # fmt: skip
    sql = f"select v from (values {rows}) as given(n, v) order by n"
    for framing in ("copy", "extended"):
        column = read(pool, memory, sql, framing=framing).column(0)
        ours = [value.as_py() for value in column]
        for value, given in zip(ours, [*values, None], strict=True):
            text = written(value, column.type, kind)
            if column.type == pa.uint32() or (column.type == pa.uint64() and kind != "pg_lsn"):
                check = f"%s::text::numeric is not distinct from {number(kind)}".replace("$", f"%s::text::{kind}")
            else:
                check = f"(%s::text::{kind})::text is not distinct from (%s::text::{kind})::text"
            if not connection.execute(f"select {check}", (text, given)).fetchone()[0]:
                return f"{given!r} came as {value!r}"
    return ""


def judge_catalog(connection: Any, pool: ConnectionPool, memory: RegionPool, name: str) -> str:
    """Read a value that PostgreSQL itself has written, and NULL; return what is wrong, or nothing."""
    column, source, sent = WITHOUT_INPUT[name]
    wanted = connection.execute(f"select {sent.format(column)} from {source}").fetchone()[0]
    sql = f"select case when n = 1 then {column} end as v from generate_series(1, 2) n, {source}"
    for framing in ("copy", "extended"):
        ours = [value.as_py() for value in read(pool, memory, f"{sql} order by n", framing=framing).column(0)]
        if not wanted or [value.encode() if isinstance(value, str) else value for value in ours] != [wanted, None]:
            return f"{wanted!r} came as {ours!r}"
    return ""


def number(kind: str) -> str:
    """Return SQL for the number behind an unsigned type."""
    return "$::text::numeric" if kind in ("xid", "cid", "xid8", "oid") else "$::oid::int8::numeric"


def survey(connection: Any, pool: ConnectionPool, memory: RegionPool) -> Iterator[tuple[str, str]]:
    """Yield (type, what is wrong) for every type."""
    known = literals()
    for kind, name, has_array in connection.execute(TYPES_SQL).fetchall():
        values = known.get(name)
        try:
            if name in WITHOUT_INPUT:
                yield kind, judge_catalog(connection, pool, memory, name)
                continue
            if values is None:
                yield kind, UNPROVEN.get(name, "no values are known here")
                continue
            problem = judge(connection, pool, memory, kind, values)
            if not problem and has_array:
                array = connection.execute(f"select array[{', '.join(['%s::text'] * len(values))}, null]::{kind}[]::text",
                                           values).fetchone()[0]  # fmt: skip
                problem = judge(connection, pool, memory, f"{kind}[]", (array, "{}")) if values else ""
        except (PgflightError, psycopg.Error, ValueError, OverflowError, pa.ArrowException) as error:
            problem = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            if getattr(error, "sqlstate", None) == NOT_BUILT:
                problem = UNPROVEN.get(name, problem)
        yield kind, problem


def main(dsn: str | None) -> int:
    """Print the table; return 1 if a type is not exact, without a reason that is known."""
    console = Console(width=150)
    with contextlib.ExitStack() as stack:
        if dsn is None:
            dsn = stack.enter_context(EmbeddedPostgres.start()).dsn(user="postgres")
        connection = stack.enter_context(psycopg.connect(dsn, autocommit=True))
        pool = ConnectionPool(dsn)
        stack.callback(pool.close)
        names = "select name from pg_catalog.pg_available_extensions where name = any(%s)"
        for (extension,) in connection.execute(
            names, (["hstore", "citext", "ltree", "cube", "lo", "vector"],)
        ).fetchall():
            connection.execute(f'create extension if not exists "{extension}"')
        connection.execute(FACTS_SQL)
        found = list(survey(connection, pool, RegionPool(64 << 20)))
        version = connection.info.server_version
        connection.execute("drop table coverage_facts")
    for kind, problem in found:
        if problem:
            console.print(f"{kind}: {problem}", markup=False)
    exact = sum(not problem for _, problem in found)
    console.print(f"PostgreSQL {version // 10000}: {exact} of {len(found)} exact")
    unproven = sum(problem in UNPROVEN.values() for _, problem in found)
    console.print(f"{unproven} of which no value can be had")
    return int(exact + unproven < len(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else None))
