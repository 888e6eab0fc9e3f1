"""Which functions and operators are immutable, whichever of their overloads a statement means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transport.catalog import Connection

ANY_ARITY = -1
"""For a call whose number of arguments is not known: every overload counts."""
FIRST_USER_OID = 16384
"""PostgreSQL's FirstNormalObjectId: what has an OID below it is PostgreSQL's own, whatever its name."""
# Whoever may have made operators on the search path, these queries mean PostgreSQL's own.
PATH_SQL = b"""
select pg_catalog.current_schemas(true); savepoint catalog; set local search_path to pg_catalog
"""
LAST = 2**31 - 1
"""Sorts what is not a call after the calls."""

# Overloads count whatever their schema and the types of their arguments: which one is meant is never guessed.  A
# literal may become an argument, so its type must read it alike at any moment; a result may become text, so its
# type must show it alike.  Literals that are dates or times are for the caller to look at.  PostgreSQL's own
# operators that are not immutable take dates or times, or turn any value to text: that is inlined, and the plan
# shows the cast.  Casts that are implied are not shown in a plan, so there must be none to fear.
MUTABLE_SQL = f"""
with call as (
    select * from unnest(%(names)s::pg_catalog.text[], %(arities)s::int[])
         with ordinality as w(name, arity, position)
), type as (
    select t.oid, pg_catalog.format_type(t.oid, null) as name,
           coalesce(e.typcategory, t.typcategory) in ('D', 'T') as is_time,
           generic or coalesce(ei.provolatile, i.provolatile) = 'i' as reads_alike,
           generic or coalesce(eo.provolatile, o.provolatile) = 'i' as shows_alike
    from pg_catalog.pg_type t
    cross join lateral (select t.typtype = 'p' and t.typname like 'any%%') as g(generic)
    join pg_catalog.pg_proc i on i.oid = t.typinput
    join pg_catalog.pg_proc o on o.oid = t.typoutput
    left join pg_catalog.pg_type e on e.oid = t.typelem and t.typcategory = 'A'
    left join pg_catalog.pg_proc ei on ei.oid = e.typinput
    left join pg_catalog.pg_proc eo on eo.oid = e.typoutput
), found as (
    select call.position, call.name || '()' as name, case
        when p.oid is null then 'which is not in the catalog'
        when p.prokind = 'a' then 'which is an aggregate'
        when p.prokind = 'w' then 'which is a window function'
        when p.prokind <> 'f' then 'which is a procedure'
        when p.provolatile = 'v' then 'which is volatile'
        when p.provolatile = 's' then 'which is stable'
        when p.proretset then 'which returns sets'
        when result.is_time or not result.shows_alike then 'which can return ' || result.name
        else (select 'which can take ' || type.name from type
              where type.oid = any(p.proargtypes) and not type.is_time and not type.reads_alike limit 1)
        end as reason
    from call left join pg_catalog.pg_proc p on p.proname = call.name and (
        call.arity in ({ANY_ARITY}, p.pronargs)
        or call.arity between p.pronargs - p.pronargdefaults and p.pronargs
        or p.provariadic <> 0 and call.arity >= p.pronargs - 1)
    left join type result on result.oid = p.prorettype
    union all
    select {LAST} - 2, o.oprname, 'which is not immutable for all types'
    from pg_catalog.pg_operator o
    join pg_catalog.pg_proc p on p.oid = o.oprcode
    join type result on result.oid = o.oprresult
    where o.oprname = any(%(operators)s::pg_catalog.text[])
      and (p.provolatile <> 'i' or o.oid >= {FIRST_USER_OID} and (result.is_time or not result.shows_alike))
      and not (o.oid < {FIRST_USER_OID} and (p.proname in ('textanycat', 'anytextcat') or exists (
          select from type where type.oid in (o.oprleft, o.oprright) and type.is_time)))
    union all
    select {LAST} - 1, 'a value', 'whose type has the name of one of PostgreSQL''s own'
    from pg_catalog.pg_type t
    join pg_catalog.pg_namespace n on n.oid = t.typnamespace
    where t.typname = any(%(types)s::pg_catalog.text[]) and t.oid >= {FIRST_USER_OID}
      and array_position(%(path)s::pg_catalog.name[], n.nspname)
          < array_position(%(path)s::pg_catalog.name[], 'pg_catalog')
    union all
    select {LAST}, 'a value', 'whose cast to ' || pg_catalog.format_type(c.casttarget, null) || ' is not immutable'
    from pg_catalog.pg_cast c join pg_catalog.pg_proc p on p.oid = c.castfunc
    where c.oid >= {FIRST_USER_OID} and c.castsource < {FIRST_USER_OID} and p.provolatile <> 'i'
)
select name, reason from found where reason is not null
order by position, reason like 'which is %%' desc, reason limit 1
"""  # noqa: S608 (its own constants)


@dataclass(frozen=True, slots=True)
class Mutable:
    """Something whose value may depend on more than its arguments.

    Parameters
    ----------
    name : str
        ``now()``, or an operator.
    reason : str
        For people: ``which is stable``.
    """

    name: str
    reason: str


def first_mutable(
    connection: Connection,
    calls: Sequence[tuple[str, int]],
    operators: Sequence[str],
    types: Sequence[str],
) -> Mutable | None:
    """Return the first of the functions and operators named that is not known to be immutable.

    Parameters
    ----------
    connection : Connection
        In a transaction.
    calls : sequence of (str, int)
        Names of functions as in the catalog, and how many arguments are given, or `ANY_ARITY`.
    operators : sequence of str
    types : sequence of str
        Names that must mean PostgreSQL's own types.
    """
    row = connection.execute(PATH_SQL).fetchone()
    wanted = {
        "path": row[0] if row else [],
        "names": [name for name, _ in calls],
        "arities": [arity for _, arity in calls],
        "operators": list(operators),
        "types": list(types),
    }
    row = connection.execute(MUTABLE_SQL, wanted).fetchone()
    connection.execute(b"rollback to savepoint catalog; release savepoint catalog")
    return Mutable(*row) if row else None
