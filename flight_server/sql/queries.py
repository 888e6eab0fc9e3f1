"""What the metadata commands ask of PostgreSQL's catalog: only what the login may read is listed.

Parameters that are NULL do not narrow.  A catalog is a database, and there is one; every schema has a catalog and
every table a schema, so a filter on the empty name finds nothing.  ``name`` sorts by bytes.
"""

# ruff: noqa: S608 (the parts are constants)

from __future__ import annotations

from typing import Final

from transport.catalog import PARTS_SQL

FACTS: Final = """
select pg_catalog.current_database()::text as database, pg_catalog.current_setting('server_version') as version,
       (select pg_catalog.string_agg(upper(word), ' ' order by word) from pg_catalog.pg_get_keywords()) as keywords
"""

CURRENT_SCHEMA: Final = "select pg_catalog.current_schema()::text as schema"

SCHEMA_EXISTS: Final = """
select n.nspname::text as schema from pg_catalog.pg_namespace n
where n.nspname = $1::text and pg_catalog.has_schema_privilege(n.oid, 'USAGE')
"""

# Schemas of TOAST and of other sessions' temporary tables are nobody's business.
_VISIBLE_SCHEMA = """
pg_catalog.has_schema_privilege(n.oid, 'USAGE')
  and n.nspname not like 'pg\\_toast%' and n.nspname not like 'pg\\_temp\\_%'
"""
_VISIBLE = f"{_VISIBLE_SCHEMA} and pg_catalog.has_any_column_privilege(c.oid, 'SELECT')"

SYSTEM_SCHEMAS: Final = ("pg_catalog", "information_schema")
TABLE_TYPES: Final = ("FOREIGN TABLE", "MATERIALIZED VIEW", "SYSTEM TABLE", "SYSTEM VIEW", "TABLE", "VIEW")

_TABLE_TYPE = """
case when n.nspname in ('pg_catalog', 'information_schema')
     then case c.relkind when 'v' then 'SYSTEM VIEW' else 'SYSTEM TABLE' end
     else case c.relkind when 'v' then 'VIEW' when 'm' then 'MATERIALIZED VIEW' when 'f' then 'FOREIGN TABLE'
                         else 'TABLE' end
end
"""

DB_SCHEMAS: Final = f"""
select pg_catalog.current_database()::text, n.nspname::text
from pg_catalog.pg_namespace n
where {_VISIBLE_SCHEMA}
  and ($1::text is null or $1 = pg_catalog.current_database())
  and ($2::text is null or n.nspname like $2)
order by n.nspname
"""

_TABLES = f"""
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'v', 'm', 'f') and {_VISIBLE}
  and ($1::text is null or $1 = pg_catalog.current_database())
  and ($2::text is null or n.nspname like $2)
  and ($3::text is null or c.relname like $3)
  and ($4::text[] is null or {_TABLE_TYPE} = any($4))
"""

TABLES: Final = f"""
select pg_catalog.current_database()::text, n.nspname::text, c.relname::text, {_TABLE_TYPE}
{_TABLES}
order by n.nspname, c.relname
"""

# One row per readable column, and one without a column for a table that has none.  A default that depends on a
# sequence counts up; its text is not asked for: that would wait for whoever alters the table.
COLUMNS: Final = f"""
with recursive domain(oid, type, typmod) as (
    select oid, typbasetype, typtypmod from pg_catalog.pg_type where typtype = 'd'
    union all
    select d.oid, t.typbasetype, t.typtypmod
    from domain d join pg_catalog.pg_type t on t.oid = d.type where t.typtype = 'd'),
base as (select d.* from domain d join pg_catalog.pg_type t on t.oid = d.type where t.typtype <> 'd'),
wanted as (select c.oid, n.nspname, c.relname, {_TABLE_TYPE} as kind {_TABLES})
select pg_catalog.current_database()::text as catalog, w.nspname::text as schema, w.relname::text as table_name,
       w.kind as table_type, a.attname::text as name, t.oid::int8 as type_oid,
       case when b.oid is null then a.atttypmod else b.typmod end::int4 as typmod, t.typname::text as type_name,
       pg_catalog.format_type(a.atttypid, a.atttypmod) as display_type, t.typtype::text as kind,
       t.typcategory::text as category, s.proname::text as send, a.attnotnull or declared.typnotnull as not_null,
       pg_catalog.col_description(w.oid, a.attnum) as comment,
       a.attidentity <> '' or exists (
           select from pg_catalog.pg_depend u join pg_catalog.pg_class q on q.oid = u.refobjid and q.relkind = 'S'
           where u.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass and u.objid = f.oid) as auto_increment
from wanted w
left join pg_catalog.pg_attribute a on a.attrelid = w.oid and a.attnum > 0 and not a.attisdropped
      and pg_catalog.has_column_privilege(w.oid, a.attnum, 'SELECT')
left join pg_catalog.pg_type declared on declared.oid = a.atttypid
left join base b on b.oid = a.atttypid
left join pg_catalog.pg_type t on t.oid = coalesce(b.type, a.atttypid)
left join pg_catalog.pg_proc s on s.oid = t.typsend
left join pg_catalog.pg_attrdef f on f.adrelid = w.oid and f.adnum = a.attnum
order by w.nspname, w.relname, a.attnum
"""

PARTS: Final = PARTS_SQL.replace("%s", "$1")

PRIMARY_KEYS: Final = f"""
select pg_catalog.current_database()::text, n.nspname::text, c.relname::text, a.attname::text, k.position::int4,
       p.conname::text
from pg_catalog.pg_constraint p
join pg_catalog.pg_class c on c.oid = p.conrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
cross join lateral pg_catalog.unnest(p.conkey) with ordinality as k(number, position)
join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum = k.number
where p.contype = 'p' and {_VISIBLE}
  and ($1::text is null or $1 = pg_catalog.current_database())
  and ($2::text is null or n.nspname = $2) and c.relname = $3::text
order by n.nspname, c.relname, p.conname, k.position
"""


def foreign_keys(*, of_key: bool, of_table: bool) -> str:
    """Return the query for foreign keys.

    Parameters
    ----------
    of_key : bool
        $1, $2, $3 name catalog, schema and table of the key referred to.
    of_table : bool
        The next three name those of the table that refers.
    """
    conditions, order = [], ["fn.nspname", "f.relname", "r.conname"]
    if of_key:
        conditions += _side("pn", "p", 1)
        # A partition's foreign key is its parent's: it is listed for the partition, where that is asked for.
        conditions.append("r.conparentid = 0")
    if of_table:
        conditions += _side("fn", "f", 4 if of_key else 1)
    if not of_key:
        conditions.append(
            "not exists (select from pg_catalog.pg_constraint above "
            "where above.oid = r.conparentid and above.conrelid = r.conrelid)"
        )
        order = ["pn.nspname", "p.relname", 'pk.name collate "C"', "r.conname"]
    return FOREIGN_KEYS.format(conditions="\n  and ".join(conditions), order=", ".join(order))


def _side(schema: str, table: str, first: int) -> list[str]:
    return [
        f"(${first}::text is null or ${first} = pg_catalog.current_database())",
        f"(${first + 1}::text is null or {schema}.nspname = ${first + 1})",
        f"{table}.relname = ${first + 2}::text",
    ]


FOREIGN_KEYS: Final = """
select pg_catalog.current_database()::text, pn.nspname::text, p.relname::text, pa.attname::text,
       pg_catalog.current_database()::text, fn.nspname::text, f.relname::text, fa.attname::text,
       k.position::int4, r.conname::text,
       pk.name, pg_catalog.strpos('crnad', r.confupdtype::text) - 1,
       pg_catalog.strpos('crnad', r.confdeltype::text) - 1
from pg_catalog.pg_constraint r
join pg_catalog.pg_class p on p.oid = r.confrelid join pg_catalog.pg_namespace pn on pn.oid = p.relnamespace
join pg_catalog.pg_class f on f.oid = r.conrelid join pg_catalog.pg_namespace fn on fn.oid = f.relnamespace
cross join lateral rows from (pg_catalog.unnest(r.confkey), pg_catalog.unnest(r.conkey)) with ordinality
    as k(key_number, number, position)
join pg_catalog.pg_attribute pa on pa.attrelid = p.oid and pa.attnum = k.key_number
join pg_catalog.pg_attribute fa on fa.attrelid = f.oid and fa.attnum = k.number
cross join lateral (
    select coalesce((select u.conname::text from pg_catalog.pg_constraint u
                     where u.conindid = r.conindid and u.conrelid = p.oid and u.contype in ('p', 'u') limit 1),
                    (select i.relname::text from pg_catalog.pg_class i where i.oid = r.conindid)) as name) as pk
where r.contype = 'f' and pg_catalog.has_schema_privilege(pn.oid, 'USAGE')
  and pg_catalog.has_schema_privilege(fn.oid, 'USAGE') and pg_catalog.has_any_column_privilege(p.oid, 'SELECT')
  and pg_catalog.has_any_column_privilege(f.oid, 'SELECT')
  and {conditions}
order by {order}, k.position
"""
"""The last two columns are the values of the enumeration UpdateDeleteRules."""
