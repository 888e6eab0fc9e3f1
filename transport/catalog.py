"""What the catalog knows: the columns of a statement, the tables of a database."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import psycopg
from psycopg.pq import abc

from kernels.column import Column

TYPES_SQL = """
select t.oid::pg_catalog.int8, t.typname::pg_catalog.text, t.typtype::pg_catalog.text,
       t.typcategory::pg_catalog.text,
       case when t.typsend <> 0 then s.proname::pg_catalog.text end
from pg_catalog.pg_type t left join pg_catalog.pg_proc s on s.oid = t.typsend
where t.oid = any(%s::pg_catalog.int8[]::pg_catalog.oid[])
"""

# A NOT NULL constraint that was never validated (PostgreSQL 18) promises nothing, nor does a foreign server's;
# tables that inherit need not keep their parent's, partitions must.
ORIGINS_SQL = """
select a.attrelid::pg_catalog.int8, a.attnum::pg_catalog.int4,
       a.attnotnull and (c.relkind = 'p' or c.relkind = 'r' and not c.relhassubclass) and not exists (
           select from pg_catalog.pg_constraint k
           where k.conrelid = a.attrelid and k.contype = 'n' and not k.convalidated
             and k.conkey = array[a.attnum]),
       pg_catalog.col_description(a.attrelid, a.attnum),
       case when a.attcollation not in (0, t.typcollation)
       then a.attcollation::pg_catalog.regcollation::pg_catalog.text end
from pg_catalog.pg_attribute a join pg_catalog.pg_class c on c.oid = a.attrelid
join pg_catalog.pg_type t on t.oid = a.atttypid
join unnest(%s::pg_catalog.int8[]::pg_catalog.oid[], %s::pg_catalog.int2[]) as wanted(relation, number)
  on a.attrelid = wanted.relation and a.attnum = wanted.number
"""

DISPLAY_SQL = """
select pg_catalog.format_type(oid, typmod)
from unnest(%s::pg_catalog.int8[]::pg_catalog.oid[], %s::pg_catalog.int4[])
     with ordinality as wanted(oid, typmod, position)
order by position
"""

# One row per readable column; `columns` counts all of the relation's, readable or not.
TABLES_SQL = """
select n.nspname::pg_catalog.text, c.relname::pg_catalog.text, c.relnatts - (
           select count(*) from pg_catalog.pg_attribute d
           where d.attrelid = c.oid and d.attnum > 0 and d.attisdropped),
       case when c.reltuples < 0 then -1 else c.reltuples::pg_catalog.int8 end,
       case when c.relkind in ('r', 'm') then pg_catalog.pg_relation_size(c.oid) else -1 end,
       a.attname::pg_catalog.text, a.atttypid::pg_catalog.int8, a.atttypmod::pg_catalog.int4,
       c.oid::pg_catalog.int8, a.attnum::pg_catalog.int4
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.relkind in ('r', 'p', 'm', 'v', 'f') and not c.relispartition
  and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast') and n.nspname not like 'pg\\_temp\\_%%'
  and pg_catalog.has_schema_privilege(n.oid, 'USAGE')
  and pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')
  and n.nspname || '.' || c.relname like %s
order by 1, 2, a.attnum
"""

BASE_TYPES_SQL = """
with recursive base(oid, type, typmod) as (
    select oid, oid, -1 from pg_catalog.pg_type where oid = any(%s::pg_catalog.int8[]::pg_catalog.oid[])
    union all
    select base.oid, t.typbasetype, t.typtypmod from base join pg_catalog.pg_type t on t.oid = base.type
    where t.typtype = 'd')
select base.oid::pg_catalog.int8, base.type::pg_catalog.int8, base.typmod
from base join pg_catalog.pg_type t on t.oid = base.type
where t.typtype <> 'd'
"""

# What types are made of, at all depths: elements, attributes, bounds, ranges of multiranges, domains' bases.
PARTS_SQL = """
with recursive part(whole, name, type, typmod, number) as (
    select t.oid, '', t.typelem, -1, 0 from pg_catalog.pg_type t join pg_catalog.pg_proc s on s.oid = t.typsend
    where t.typelem <> 0 and s.proname in ('array_send', 'int2vectorsend', 'oidvectorsend')
    union all
    select t.oid, a.attname::pg_catalog.text, a.atttypid, a.atttypmod, a.attnum
    from pg_catalog.pg_type t join pg_catalog.pg_attribute a on a.attrelid = t.typrelid
    where t.typtype = 'c' and a.attnum > 0 and not a.attisdropped
    union all
    select rngtypid, '', rngsubtype, -1, 0 from pg_catalog.pg_range
    union all
    select rngmultitypid, '', rngtypid, -1, 0 from pg_catalog.pg_range
    union all
    select oid, '', typbasetype, typtypmod, 0 from pg_catalog.pg_type where typtype = 'd'),
tree(oid) as (
    select pg_catalog.unnest(%s::pg_catalog.int8[]::pg_catalog.oid[])
    union select part.type from tree join part on part.whole = tree.oid)
select part.whole::pg_catalog.int8, part.name, part.type::pg_catalog.int8, part.typmod,
       t.typname::pg_catalog.text, t.typtype::pg_catalog.text,
       t.typcategory::pg_catalog.text, s.proname::pg_catalog.text as send
from part join tree on tree.oid = part.whole join pg_catalog.pg_type t on t.oid = part.type
left join pg_catalog.pg_proc s on s.oid = t.typsend
order by part.whole, part.number
"""

ARRAY_SENDS = ("array_send", "int2vectorsend", "oidvectorsend")
MAX_DEPTH = 16
"""Parts of parts that are looked at: what lies deeper is read as text."""

SIZE_SQL = """
select case when c.reltuples < 0 then -1 else c.reltuples::pg_catalog.int8 end,
       case when c.relkind in ('r', 'm') then pg_catalog.pg_relation_size(c.oid) else -1 end
from pg_catalog.pg_class c where c.oid = pg_catalog.to_regclass(%s)
"""

Connection = psycopg.Connection[tuple[Any, ...]]

FIRST_USER_OID = 16384
"""PostgreSQL's FirstNormalObjectId: what has an OID below it is PostgreSQL's own."""
MAX_DISPLAYS = 4096


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
    whole : bool
        Whether these are all columns.
    estimated_rows, estimated_bytes : int
        From the statistics and the files' size; -1 when unknown.
    """

    schema: str
    name: str
    columns: tuple[Column, ...]
    whole: bool
    estimated_rows: int
    estimated_bytes: int


@dataclass(frozen=True, slots=True)
class _Field:
    """A column before the catalog was asked about its type and origin."""

    name: str
    type_oid: int
    typmod: int
    relation_oid: int
    number: int


Parts = dict[int, list[tuple[str, int, int]]]
"""Per type the (name, OID, type modifier) of its parts."""


Origins = Mapping[tuple[int, int], tuple[bool, str | None, str | None]]
"""NOT NULL, comment and collation of tables' columns, by the table's OID and the column's number."""


class TypeCache:
    """Remembers what the OIDs of one database mean.  Thread-safe; a type's OID never changes its meaning.

    The parts of a type can change (ALTER TYPE … ADD ATTRIBUTE): those of users' types are asked for every time.
    """

    def __init__(self) -> None:
        self._parts: Parts = {}
        self._types: dict[int, TypeInfo] = {}
        self._displays: dict[tuple[int, int], str] = {}
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

    def displayed(self, connection: Connection, wanted: Sequence[tuple[int, int]]) -> list[str]:
        """Return types with their modifiers as SQL writes them, asking PostgreSQL for new ones.

        Types of users are asked for each time: how they are written depends on the search path.
        """
        with self._lock:
            known = {each: self._displays[each] for each in set(wanted) if each in self._displays}
        missing = sorted(set(wanted) - known.keys())
        if missing:
            oids, typmods = zip(*missing, strict=True)
            rows = connection.execute(DISPLAY_SQL, (list(oids), list(typmods))).fetchall()
            asked = {each: row[0] for each, row in zip(missing, rows, strict=True)}
            with self._lock:
                if len(self._displays) > MAX_DISPLAYS:
                    self._displays.clear()
                self._displays.update({each: text for each, text in asked.items() if each[0] < FIRST_USER_OID})
            known |= asked
        return [known[each] for each in wanted]

    def parts_of(self, connection: Connection, oids: Sequence[int]) -> Parts:
        """Return the parts of types that are made of others, at all depths."""
        infos = self.look_up(connection, oids)
        made = {oid for oid in oids if infos[oid].kind in "cdmr" or infos[oid].send in ARRAY_SENDS}
        with self._lock:
            known = dict(self._parts)
        missing = sorted(made - known.keys())
        if missing:
            found: Parts = {}
            for whole, name, oid, typmod, *_ in connection.execute(PARTS_SQL, (missing,)).fetchall():
                found.setdefault(whole, []).append((name, oid, typmod))
            known |= found
            with self._lock:
                self._parts.update({oid: parts for oid, parts in found.items() if oid < FIRST_USER_OID})
        return known


def describe_result(
    connection: Connection,
    types: TypeCache,
    described: abc.PGresult,
    origins: Origins | None,
) -> tuple[Column, ...]:
    """Turn a Describe into columns.

    Parameters
    ----------
    connection : Connection
        In the transaction of the statement.
    types : TypeCache
    described : PGresult
        Result of ``describe_prepared``.
    origins : mapping or None
        What is known of tables' columns.  None where the statement reads one relation as it is: NOT NULL then
        holds for the result as well, and all is asked for.
    """
    found = [
        _Field(
            name=(described.fname(index) or b"").decode(),
            type_oid=described.ftype(index),
            typmod=described.fmod(index),
            relation_oid=described.ftable(index),
            number=described.ftablecol(index),
        )
        for index in range(described.nfields)
    ]
    return _complete(connection, types, found, _origins(connection, found) if origins is None else origins)


def list_tables(connection: Connection, types: TypeCache, pattern: str = "%") -> list[Table]:
    """Return the relations that the role may read and whose ``schema.name`` is LIKE `pattern`."""
    rows = connection.execute(TABLES_SQL, (pattern,)).fetchall()
    oids = sorted({row[6] for row in rows})
    bases = {row[0]: (row[1], row[2]) for row in connection.execute(BASE_TYPES_SQL, (oids,)).fetchall()}
    found = []
    for *_, name, oid, typmod, relation_oid, number in rows:
        # A result shows a domain as its base type, so the list does too.
        base, base_typmod = bases[oid]
        found.append(_Field(name, base, typmod if base == oid else base_typmod, relation_oid, number))
    completed = zip(rows, _complete(connection, types, found, _origins(connection, found)), strict=True)
    tables = []
    for (schema, name, count, estimated_rows, estimated_bytes), members in groupby(
        completed, lambda pair: pair[0][:5]
    ):
        columns = tuple(column for _, column in members)
        tables.append(Table(schema, name, columns, len(columns) == count, estimated_rows, estimated_bytes))
    return tables


def estimate(connection: Connection, relation: str) -> tuple[int, int]:
    """Return the estimated (rows, bytes) of a relation named as in SQL, -1 where unknown."""
    row = connection.execute(SIZE_SQL, (relation,)).fetchone()
    return (row[0], row[1]) if row else (-1, -1)


def _complete(
    connection: Connection, types: TypeCache, found: Sequence[_Field], origins: Origins
) -> tuple[Column, ...]:
    """Add what the catalog knows of types and origins."""
    parts = types.parts_of(connection, [field.type_oid for field in found])
    inner = [oid for members in parts.values() for _, oid, _ in members]
    infos = types.look_up(connection, [*(field.type_oid for field in found), *inner])
    displays = types.displayed(connection, [(field.type_oid, field.typmod) for field in found])
    columns = []
    for field, display in zip(found, displays, strict=True):
        place = field.relation_oid, field.number
        not_null, comment, collation = origins.get(place, (False, None, None))
        column = column_of(field.name, field.type_oid, field.typmod, infos, parts)
        columns.append(
            replace(column, display_type=display, not_null=not_null, comment=comment, collation=collation)
        )
    return tuple(columns)


def column_of(
    name: str, oid: int, typmod: int, infos: dict[int, TypeInfo], parts: Parts, depth: int = 0
) -> Column:
    """Describe a type with its parts; a domain as its base type, under its own OID."""
    info, members = infos[oid], parts.get(oid, []) if depth < MAX_DEPTH else []
    if info.kind == "d" and members:
        ((_, base, base_typmod),) = members
        return replace(column_of(name, base, base_typmod, infos, parts, depth + 1), wire_oid=oid)
    # An array's type modifier is its elements'.
    inherited = typmod if info.send in ARRAY_SENDS else -1
    return Column(
        name=name,
        type_oid=oid,
        typmod=typmod,
        type_name=info.name,
        kind=info.kind,
        category=info.category,
        send=info.send,
        parts=tuple(
            column_of(part, part_oid, max(inherited, part_typmod), infos, parts, depth + 1)
            for part, part_oid, part_typmod in members
        ),
    )


def _origins(connection: Connection, found: Sequence[_Field]) -> Origins:
    """Return (not null, comment, collation) of the table columns a result comes from."""
    known = sorted(
        {(field.relation_oid, field.number) for field in found if field.relation_oid and field.number > 0}
    )
    if not known:
        return {}
    relations, numbers = zip(*known, strict=True)
    rows = connection.execute(ORIGINS_SQL, (list(relations), list(numbers))).fetchall()
    return {(row[0], row[1]): (row[2], row[3], row[4]) for row in rows}
