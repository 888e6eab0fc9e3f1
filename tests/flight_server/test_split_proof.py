"""Splitting, proven by PostgreSQL: its catalog, its canonical text, and the trees that it prints."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from itertools import product

import psycopg
import pytest

from demo.postgres import EmbeddedPostgres
from flight_server.reading import safety
from kernels.errors import PgflightError
from tests.helpers.splitting import as_written, division, tables_in
from transport.pool import ConnectionPool

ARGUMENTS = {
    "bool": ("ok",), "int4": ("k", "'1'"), "int8": ("id", "k"), "float8": ("f", "k"), "numeric": ("n", "id", "'1'"),
    "text": ("name", "v", "'now'", "'x'"), "varchar": ("v",), "bpchar": ("b",), "uuid": ("u",), "bytea": ("raw",),
    "date": ("day", "'2024-01-01'"), "timestamp": ("plain", "day", "'today'"), "timestamptz": ("ts", "day", "plain", "'now'"),
    "_int4": ("arr",), "jsonb": ("j",), "interval": ("'1 day'",), "regclass": ("'split.t'", "name"), "any": ("ts", "id"),
    "anyelement": ("id", "ts"), "anyarray": ("arr",), "anycompatible": ("id", "day"), "anycompatiblearray": ("arr",),
    "anynonarray": ("id", "ts", "day"), "int2": ("'1'",), "oid": ("tableoid",), "tid": ("ctid",),
}  # fmt: skip
"""Columns and literals for the types of arguments, also of other types that PostgreSQL would cast."""
WRAPPED = (
    "'x' || ({})", "coalesce(({})::text, 'x')", "case when ({}) is null then 1 end", "nullif(({}), ({}))", "array[{}]::text",
)  # fmt: skip
INLINED = ("textanycat", "anytextcat")
"""Stable, but replaced by a cast to text: what it does to the type that it is given is what counts."""
HARMLESS = frozenset((
    "QUERY", "PLANNEDSTMT", "SEQSCAN", "RESULT", "EXPLAINSTMT", "DEFELEM", "FROMEXPR", "RANGETBLREF", "RTE",
    "RANGETBLENTRY", "RTEPERMISSIONINFO", "ALIAS", "TARGETENTRY", "VAR", "CONST", "FUNCEXPR", "OPEXPR", "NULLIFEXPR",
    "DISTINCTEXPR", "SCALARARRAYOPEXPR", "BOOLEXPR", "CASEEXPR", "CASEWHEN", "CASETESTEXPR", "COALESCEEXPR",
    "NULLTEST", "ARRAYEXPR", "RELABELTYPE", "COERCEVIAIO", "ARRAYCOERCEEXPR", "COLLATEEXPR", "PARAM", "PLANINVALITEM",
))  # fmt: skip
"""Nodes of a tree that are as immutable as the functions that they name."""


@pytest.fixture(scope="module", autouse=True)
def tables(postgres: EmbeddedPostgres) -> Iterator[None]:
    with tables_in(postgres):
        yield


def expressions(connection: psycopg.Connection, count: int) -> list[str]:
    """Return calls of PostgreSQL's own functions and operators, some of them inside of others."""
    chosen = random.Random(count)
    signatures = connection.execute(
        """
        select quote_ident(p.proname), array(select t.typname::text from unnest(p.proargtypes::oid[])
            with ordinality as a(oid, position) join pg_type t on t.oid = a.oid order by a.position), false
        from pg_proc p where prokind = 'f' and not proretset and proname not like 'pg\\_%%'
          and not 'cstring'::regtype = any(proargtypes) and not 'internal'::regtype = any(proargtypes)
        union all
        select oprname, array_remove(array[l.typname::text, r.typname::text], null), true
        from pg_operator left join pg_type l on l.oid = oprleft join pg_type r on r.oid = oprright order by 1, 2
        """
    ).fetchall()
    possible = [one for one in signatures if all(name in ARGUMENTS for name in one[1])]
    found = []
    for name, types, is_operator in chosen.sample(possible, min(count, len(possible))):
        given = chosen.choice(list(product(*(ARGUMENTS[one] for one in types))))
        if is_operator:
            found.append(f"{given[0]} {name} {given[1]}" if len(given) == 2 else f"{name} {given[0]}")
        else:
            found.append(f"{name}({', '.join(given)})")
    wrapped = [
        chosen.choice(WRAPPED).format(one, other) for one, other in zip(found, reversed(found), strict=True)
    ]
    return [*found, *wrapped[: count // 3]]


@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_trees_of_what_is_split_are_immutable(
    postgres: EmbeddedPostgres, pool: ConnectionPool, count: int
) -> None:
    """PostgreSQL prints what it made of a statement, as parsed and as planned, with every function's number."""
    printed: list[str] = []
    with postgres.connect() as connection:
        mutable = dict(
            connection.execute(
                "select oid::int8, oid::regprocedure::text from pg_proc where provolatile <> 'i' and proname <> all(%s)",
                (list(INLINED),),
            ).fetchall()
        )
        asked = [f"select {one} as x from split.t" for one in expressions(connection, count)]
        asked += [f"select id from split.t where ({one[7:-18]}) is not null" for one in asked]
        connection.add_notice_handler(lambda notice: printed.append(notice.message_detail or ""))
        connection.execute("set client_min_messages = log; set debug_print_parse = on; set debug_print_plan = on")
        split = 0
        for sql in asked:
            try:
                if not division(pool, sql).parts:
                    continue
            except PgflightError:
                continue  # PostgreSQL does not accept it
            split += 1
            printed.clear()
            connection.execute(as_written(f"explain {sql}"))
            tree = "\n".join(printed)
            numbers = {int(number) for number in re.findall(r":(?:funcid|opfuncid) (\d+)", tree)}
            assert tree
            assert not [mutable[number] for number in numbers if number in mutable], sql
            assert set(re.findall(r"\{([A-Z]+)", tree)) <= HARMLESS, sql
    assert split > len(asked) // 20


def test_types_that_are_called_safe(database: psycopg.Connection) -> None:
    """PostgreSQL must agree: each is read from text and shown as text immutably, and compared with itself."""
    unsafe = database.execute(
        """
        select t.typname from pg_type t join pg_proc i on i.oid = t.typinput join pg_proc o on o.oid = t.typoutput
        where t.oid < 16384 and t.typname = any(%s) and (i.provolatile <> 'i' or o.provolatile <> 'i')
        """,
        (sorted(safety.VALUE_TYPES),),
    ).fetchall()
    assert not unsafe
    compared = database.execute(
        """
        select count(*) from pg_operator o join pg_type t on t.oid = o.oprleft and t.oid = o.oprright
        join pg_proc p on p.oid = o.oprcode
        where t.oid < 16384 and t.typname = any(%s) and o.oprname = any(%s) and p.provolatile = 'i'
        """,
        (sorted(safety.TIME_TYPES), sorted(safety.COMPARISONS)),
    ).fetchone()
    assert compared == (len(safety.TIME_TYPES) * len(safety.COMPARISONS),)


def test_casts_between_safe_types(database: psycopg.Connection) -> None:
    """No cast among the types that may be computed with is anything but immutable, and none leads to a time unseen."""
    found = database.execute(
        """
        select s.typname, t.typname from pg_cast c join pg_type s on s.oid = c.castsource
        join pg_type t on t.oid = c.casttarget join pg_proc p on p.oid = c.castfunc
        where c.oid < 16384 and s.typname = any(%(safe)s) and (
            t.typname = any(%(safe)s) and p.provolatile <> 'i' or c.castcontext = 'i' and t.typcategory in ('D', 'T'))
        """,
        {"safe": sorted(safety.VALUE_TYPES)},
    ).fetchall()
    assert not found


@pytest.mark.parametrize(
    "text",
    ["t.textual::textual", "(x)::text.y", "B'1'::\"bit\"", "$0", "t.*", "(SubPlan 1)", "x::date_range", "f.g.h(1)",
     "(k)::bit(3)", "(k)::regclass", "'1'::oid", "(x)::text[][1]", "'x'", "\"X\"::\"Y\"", "x::time without time zone"],
)  # fmt: skip
def test_what_is_not_known_is_not_taken_for_something_else(text: str) -> None:
    assert any(token.kind == "other" for token in safety.Scan.of({"Filter": text}).condition)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("(x + 'a''b::text('::text)", "mark column operator constant mark"),
        ('t."a ""b".c', "other"),
        ('"A""b"."C.d"', "column"),
        ('s."left"(t.name, 1)', "call column mark number mark"),
        (
            "CASE WHEN ok THEN true ELSE NULL::boolean END",
            "keyword keyword column keyword boolean keyword constant keyword",
        ),
        ("(arr)::integer[]", "mark column mark cast"),
        ("(v)::character varying(3)", "mark column mark cast"),
        ("arr[1:2]", "column mark number mark number mark"),
        ("'2024-01-01 00:00:00+00'::timestamp(3) with time zone", "constant"),
    ],
)
def test_words_of_a_plan(text: str, kinds: str) -> None:
    assert " ".join(token.kind for token in safety.Scan.of({"Filter": text}).condition).startswith(kinds)
