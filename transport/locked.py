"""What a transaction has locked: what was truncated or rewritten meanwhile, and what is said of its columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

FIRST_NORMAL_OID = 16384
"""Below are the catalog's own relations, which these queries lock themselves."""
DEFAULT_COLLATION = 100
NAME = 19
"""The only plain type with another collation."""

# PostgreSQL plans an array of OIDs in half the time of a join.
_MINE = """
any(array(select l.relation from pg_catalog.pg_lock_status() l
          where l.pid = pg_catalog.pg_backend_pid() and l.locktype = 'relation'))
"""

# A relation that was truncated or rewritten after the snapshot was taken looks empty to it.  The catalog as the
# snapshot sees it and the file the relation has now tell the two apart; every relation read so far is locked.
_REWRITTEN = """
c.relkind in ('r', 'm') and c.relfilenode <> 0 and c.relfilenode <> pg_catalog.pg_relation_filenode(c.oid)
"""
REWRITTEN_SQL = f"""
select c.relname::pg_catalog.text from pg_catalog.pg_class c where c.oid = {_MINE} and {_REWRITTEN}
"""  # noqa: S608 (its own constants)

# A statement that was parsed has locked what its columns come from; a partitioned table without its partitions.
LOCKED_SQL = f"""
select 0::pg_catalog.oid,
  case c.relkind when 'p' then -1 else coalesce(pg_catalog.pg_relation_size(c.oid), 0) end,
  case when {_REWRITTEN} then c.relname end
from pg_catalog.pg_class c where c.oid = {_MINE} and c.oid >= {FIRST_NORMAL_OID}
union all
select a.attrelid, -a.attnum, a.attcollation::pg_catalog.regcollation::pg_catalog.text
from pg_catalog.pg_attribute a
where a.attrelid = {_MINE} and a.attrelid >= {FIRST_NORMAL_OID} and a.attnum > 0
  and a.attcollation not in (0, {DEFAULT_COLLATION}) and a.atttypid <> {NAME}
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
    comments, collations : mapping
        Of columns, by their table's OID and their number; collations where they are not the default.
    size_bytes : int or None
        Of all relations, the catalog's own left out; None where some have partitions.
    """

    rewritten: list[str] = field(default_factory=list)
    comments: Mapping[tuple[int, int], str] = field(default_factory=dict)
    collations: Mapping[tuple[int, int], str] = field(default_factory=dict)
    size_bytes: int | None = None

    @classmethod
    def of(cls, rows: Sequence[Sequence[str]]) -> Locked:
        """Read the rows of LOCKED_SQL, as text."""
        said = {(int(oid), int(number)): text for oid, number, text in rows if oid != "0"}
        comments = {place: text for place, text in said.items() if place[1] > 0}
        collations = {(oid, -number): text for (oid, number), text in said.items() if number < 0}
        relations = [(int(size), name) for oid, size, name in rows if oid == "0"]
        sizes = [size for size, _ in relations]
        whole = min(sizes, default=0) >= 0
        rewritten = [name for _, name in relations if name]
        return cls(rewritten, comments, collations, sum(sizes) if whole else None)

    @property
    def origins(self) -> dict[tuple[int, int], tuple[bool, str | None, str | None]]:
        """What is known of the columns that have a comment or a collation: NOT NULL is not."""
        places = self.comments.keys() | self.collations.keys()
        return {place: (False, self.comments.get(place), self.collations.get(place)) for place in places}
