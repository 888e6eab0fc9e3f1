"""What a transaction has locked: what was truncated or rewritten meanwhile, and what is said of its columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# PostgreSQL plans an array of OIDs in half the time of a join.
_MINE = """
any(array(select l.relation from pg_catalog.pg_lock_status() l
          where l.pid = pg_catalog.pg_backend_pid() and l.locktype = 'relation'))
"""

# A relation that was truncated or rewritten after the snapshot was taken looks empty to it.  The catalog as the
# snapshot sees it and the file the relation has now tell the two apart; every relation read so far is locked.
REWRITTEN_SQL = f"""
select c.relname::pg_catalog.text from pg_catalog.pg_class c where c.oid = {_MINE} and c.relkind in ('r', 'm')
  and c.relfilenode <> 0 and c.relfilenode <> pg_catalog.pg_relation_filenode(c.oid)
"""  # noqa: S608 (its own constants)

# A statement that was parsed has locked whatever its columns come from.
LOCKED_SQL = f"""
select 0::pg_catalog.oid, 0, rewritten.relname from ({REWRITTEN_SQL}) as rewritten
union all
select d.objoid, d.objsubid, d.description from pg_catalog.pg_description d
where d.objoid = {_MINE} and d.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objsubid > 0
"""  # noqa: S608 (as above)


@dataclass(frozen=True, slots=True)
class Locked:
    """What LOCKED_SQL found.

    Parameters
    ----------
    rewritten : list of str
        Relations that the snapshot sees empty, though they are not.
    comments : mapping
        Of columns, by their table's OID and their number.
    """

    rewritten: list[str] = field(default_factory=list)
    comments: Mapping[tuple[int, int], str] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Sequence[Sequence[str]]) -> Locked:
        """Read the rows of LOCKED_SQL, as text."""
        comments = {(int(oid), int(number)): text for oid, number, text in rows if oid != "0"}
        return cls([text for oid, _, text in rows if oid == "0"], comments)
