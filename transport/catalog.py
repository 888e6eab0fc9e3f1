"""What the catalog knows: the columns of a statement, the tables of a database."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg.pq import abc

from kernels.column import Column

TYPES_SQL = """
select t.oid::int8, t.typname::text, t.typtype::text, t.typcategory::text,
       case when t.typsend <> 0 then s.proname::text end
from pg_catalog.pg_type t left join pg_catalog.pg_proc s on s.oid = t.typsend
where t.oid = any(%s::int8[]::oid[])
"""

# A NOT NULL constraint that was never validated (PostgreSQL 18) promises nothing, and a foreign server's less.
ORIGINS_SQL = """
select a.attrelid::int8, a.attnum::int4,
       a.attnotnull and c.relkind in ('r', 'p') and not exists (
           select from pg_catalog.pg_constraint k
           where k.conrelid = a.attrelid and k.contype = 'n' and not k.convalidated
             and k.conkey = array[a.attnum]),
       pg_catalog.col_description(a.attrelid, a.attnum)
from pg_catalog.pg_attribute a join pg_catalog.pg_class c on c.oid = a.attrelid
join unnest(%s::int8[]::oid[], %s::int2[]) as wanted(relation, number)
  on a.attrelid = wanted.relation and a.attnum = wanted.number
"""

DISPLAY_SQL = """
select pg_catalog.format_type(oid, typmod)
from unnest(%s::int8[]::oid[], %s::int4[]) with ordinality as wanted(oid, typmod, position) order by position
"""

TABLES_SQL = """
select n.nspname::text, c.relname::text,
       case when c.reltuples < 0 then -1 else c.reltuples::int8 end,
       case when c.relkind in ('r', 'm') then pg_catalog.pg_relation_size(c.oid) else -1 end,
       array_agg(a.attname::text order by a.attnum), array_agg(a.atttypid::int8 order by a.attnum),
       array_agg(a.atttypmod::int4 order by a.attnum)
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.relkind in ('r', 'p', 'm', 'v', 'f') and not c.relispartition
  and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast') and n.nspname not like 'pg\\_temp\\_%%'
  and pg_catalog.has_schema_privilege(n.oid, 'USAGE')
  and pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')
  and n.nspname || '.' || c.relname like %s
group by 1, 2, 3, 4 order by 1, 2
"""

BASE_TYPES_SQL = """
with recursive base(oid, type, typmod) as (
    select oid, oid, -1 from pg_catalog.pg_type where oid = any(%s::int8[]::oid[])
    union all
    select base.oid, t.typbasetype, t.typtypmod from base join pg_catalog.pg_type t on t.oid = base.type
    where t.typtype = 'd')
select base.oid::int8, base.type::int8, base.typmod from base join pg_catalog.pg_type t on t.oid = base.type
where t.typtype <> 'd'
"""

SIZE_SQL = """
select case when c.reltuples < 0 then -1 else c.reltuples::int8 end,
       case when c.relkind in ('r', 'm') then pg_catalog.pg_relation_size(c.oid) else -1 end
from pg_catalog.pg_class c where c.oid = pg_catalog.to_regclass(%s)
"""

Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class TypeInfo:
    """One row of pg_type, as far as decoding needs it."""

    name: str
    kind: str
    category: str
    send: str | None


UNKNOWN_TYPE = TypeInfo("unknown", "b", "U", "unknownsend")


@dataclass(frozen=True, slots=True)
class Table:
    """A table, view, materialised view or foreign table the role may read.

    Parameters
    ----------
    schema, name : str
    columns : tuple of Column
        Those it may read.
    estimated_rows, estimated_bytes : int
        From the statistics and the files' size; -1 when unknown.
    """

    schema: str
    name: str
    columns: tuple[Column, ...]
    estimated_rows: int
    estimated_bytes: int


class TypeCache:
    """Remembers what the OIDs of one database mean.  Thread-safe; a type's OID never changes its meaning."""

    def __init__(self) -> None:
        self._types: dict[int, TypeInfo] = {}
        self._lock = threading.Lock()

    def look_up(self, connection: Connection, oids: Sequence[int]) -> dict[int, TypeInfo]:
        """Return what is known of each OID, asking the catalog for new ones."""
        with self._lock:
            missing = sorted({oid for oid in oids if oid not in self._types})
        if missing:
            rows = connection.execute(TYPES_SQL, (missing,)).fetchall()
            found = {row[0]: TypeInfo(*row[1:]) for row in rows}
            with self._lock:
                self._types.update(found)
        with self._lock:
            return {oid: self._types.get(oid, UNKNOWN_TYPE) for oid in oids}


def describe_result(
    connection: Connection, types: TypeCache, described: abc.PGresult, *, trust_not_null: bool
) -> tuple[Column, ...]:
    """Turn a Describe into columns.

    Parameters
    ----------
    connection : Connection
        In the transaction of the statement.
    types : TypeCache
    described : PGresult
        Result of ``describe_prepared``.
    trust_not_null : bool
        The statement reads one relation as it is: NOT NULL then holds for the result as well.
    """
    positions = range(described.nfields)
    oids = [described.ftype(index) for index in positions]
    typmods = [described.fmod(index) for index in positions]
    infos = types.look_up(connection, oids)
    origins = _origins(connection, [(described.ftable(i), described.ftablecol(i)) for i in positions])
    displays = [row[0] for row in connection.execute(DISPLAY_SQL, (oids, typmods)).fetchall()]
    columns = []
    for index in positions:
        info = infos[oids[index]]
        not_null, comment = origins.get((described.ftable(index), described.ftablecol(index)), (False, None))
        columns.append(
            Column(
                name=(described.fname(index) or b"").decode(),
                type_oid=oids[index],
                typmod=typmods[index],
                type_name=info.name,
                display_type=str(displays[index]),
                kind=info.kind,
                category=info.category,
                send=info.send,
                not_null=trust_not_null and not_null,
                comment=comment,
            )
        )
    return tuple(columns)


def _origins(
    connection: Connection, sources: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], tuple[bool, str | None]]:
    """Return (not null, comment) of the table columns a result comes from."""
    known = sorted({source for source in sources if source[0] and source[1] > 0})
    if not known:
        return {}
    relations, numbers = zip(*known, strict=True)
    rows = connection.execute(ORIGINS_SQL, (list(relations), list(numbers))).fetchall()
    return {(row[0], row[1]): (bool(row[2]), row[3]) for row in rows}


def list_tables(connection: Connection, types: TypeCache, pattern: str = "%") -> list[Table]:
    """Return the relations that the role may read and whose ``schema.name`` is LIKE `pattern`."""
    rows = connection.execute(TABLES_SQL, (pattern,)).fetchall()
    oids = sorted({oid for row in rows for oid in row[5]})
    bases = {row[0]: (row[1], row[2]) for row in connection.execute(BASE_TYPES_SQL, (oids,)).fetchall()}
    infos = types.look_up(connection, [base for base, _ in bases.values()])
    tables = []
    for schema, name, estimated_rows, estimated_bytes, names, type_oids, typmods in rows:
        columns = []
        for column, oid, typmod in zip(names, type_oids, typmods, strict=True):
            base, base_typmod = bases[oid]
            plain = Column(name=column, type_oid=base, typmod=typmod if base == oid else base_typmod)
            info = infos[base]
            columns.append(
                replace(plain, type_name=info.name, display_type=info.name, kind=info.kind,
                        category=info.category, send=info.send)
            )  # fmt: skip
        tables.append(Table(schema, name, tuple(columns), estimated_rows, estimated_bytes))
    return tables


def estimate(connection: Connection, relation: str) -> tuple[int, int]:
    """Return the estimated (rows, bytes) of a relation named as in SQL, -1 where unknown."""
    row = connection.execute(SIZE_SQL, (relation,)).fetchone()
    return (row[0], row[1]) if row else (-1, -1)
