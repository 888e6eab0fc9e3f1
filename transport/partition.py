"""How a relation can be read in parts: its leaves, their sizes, and ranges of their pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transport.catalog import Connection

# One row per leaf with storage; `problem` says why the relation as a whole cannot be read in parts.
LEAVES_SQL = """
with root as (
    select c.oid, c.relkind from pg_catalog.pg_class c where c.oid = pg_catalog.to_regclass(%s)
), member as (
    select root.oid from root where root.relkind <> 'p'
    union
    select t.relid from root, pg_catalog.pg_partition_tree(root.oid) t where root.relkind = 'p'
)
select c.oid::pg_catalog.int8, n.nspname::pg_catalog.text, c.relname::pg_catalog.text,
       case when c.relkind in ('r', 'm') then
           pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::pg_catalog.int8
       else 0 end,
       c.relkind::pg_catalog.text,
       case when c.relkind not in ('r', 'm', 'p') then 'it is no table'
            when c.relpersistence = 't' then 'it is a temporary table'
            when c.relkind = 'r' and c.relhassubclass then 'other tables inherit from it'
            when c.relrowsecurity then 'it has row security'
            when c.relkind <> 'p' and coalesce(m.amname, '') <> 'heap' then 'its storage has no page ranges'
            when not pg_catalog.has_table_privilege(c.oid, 'SELECT')
                 and not pg_catalog.has_any_column_privilege(c.oid, 'SELECT')
            then 'a partition may not be read directly'
       end
from member join pg_catalog.pg_class c on c.oid = member.oid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
left join pg_catalog.pg_am m on m.oid = c.relam
order by c.oid
"""

MIN_RANGE_PAGES = 128
MIN_RANGE_BYTES = MIN_RANGE_PAGES << 13
"""In pages of the usual size."""
MAX_RANGE_PAGES = 4096
ORDERED_RANGE_PAGES = 1024
"""Ranges that wait for their turn are kept in memory: they are small."""
RANGES_PER_STREAM = 8
"""More ranges than streams: a slow backend or a dense stretch of pages does not leave the others idle."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A table with storage of its own.

    Parameters
    ----------
    oid : int
    schema, name : str
    pages : int
        Size in blocks, read after the snapshot was taken.
    """

    oid: int
    schema: str
    name: str
    pages: int


@dataclass(frozen=True, slots=True)
class PageRange:
    """Pages ``begin`` up to, not including, ``end`` of a leaf; without an end, all that follow.

    The last range is open: pages that are added meanwhile hold only rows that the snapshot does not see, and a
    size that was read too early must not cost a row.
    """

    leaf: Leaf
    begin: int
    end: int | None

    @property
    def pages(self) -> int:
        """Pages that were there when the leaf's size was read."""
        return max(0, (self.leaf.pages if self.end is None else self.end) - self.begin)

    @property
    def condition(self) -> str:
        """The range as SQL that PostgreSQL answers with a TID range scan."""
        lower = f"ctid >= '({self.begin},0)'::pg_catalog.tid"
        return lower if self.end is None else f"{lower} AND ctid < '({self.end},0)'::pg_catalog.tid"


def leaves(connection: Connection, relation: str) -> tuple[list[Leaf], str | None]:
    """Return the leaves of a relation named as in SQL, or why it cannot be read in parts."""
    rows = connection.execute(LEAVES_SQL, (relation,)).fetchall()
    problem = next((row[5] for row in rows if row[5]), None if rows else "it is not a relation")
    return [Leaf(*row[:4]) for row in rows if row[4] != "p"], problem


def ranges(found: list[Leaf], streams: int, *, ordered: bool) -> list[PageRange]:
    """Cut leaves into ranges of pages, enough of them to keep `streams` busy to the end."""
    return cut([PageRange(leaf, 0, None) for leaf in found], streams, ordered=ordered)


def cut(whole: Sequence[PageRange], streams: int, *, ordered: bool) -> list[PageRange]:
    """Cut ranges of pages into smaller ones; an open range leaves its last part open."""
    total = sum(page_range.pages for page_range in whole)
    size = min(MAX_RANGE_PAGES, max(MIN_RANGE_PAGES, total // (streams * RANGES_PER_STREAM)))
    if ordered:
        size = min(size, ORDERED_RANGE_PAGES)
    parts = []
    for one in whole:
        begins = list(range(one.begin, one.begin + max(one.pages, 1), size))
        parts += [
            PageRange(one.leaf, begin, end) for begin, end in zip(begins, [*begins[1:], one.end], strict=True)
        ]
    return parts


def share_out(found: list[Leaf], count: int) -> list[list[PageRange]]:
    """Deal the pages of leaves to at most `count` readers, in order and evenly; each gets at least one range."""
    total = sum(leaf.pages for leaf in found)
    count = max(1, min(count, total // MIN_RANGE_PAGES))
    shares: list[list[PageRange]] = [[] for _ in range(count)]
    before = 0
    for leaf in found:
        # Reader k gets the pages from k/count of the whole; borders are rounded once, so none is lost.
        borders = [total * k // count - before for k in range(1, count)]
        inside = [border for border in borders if 0 < border < leaf.pages]
        reader = sum(border <= 0 for border in borders)
        for begin, end in zip([0, *inside], [*inside, None], strict=True):
            shares[reader].append(PageRange(leaf, begin, end))
            reader += 1
        before += leaf.pages
    return shares
