"""Which statements are split: what is proven to be the same in every session, and what is not."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pyarrow as pa
import pytest
from pyarrow import flight

from demo.postgres import EmbeddedPostgres
from tests.helpers.splitting import command, require_same, scan_of, tables_in


@pytest.fixture(scope="module", autouse=True)
def tables(postgres: EmbeddedPostgres) -> Iterator[None]:
    with tables_in(postgres):
        yield


@pytest.fixture
def oracle(postgres: EmbeddedPostgres) -> Iterator[psycopg.Connection]:
    """A connection that sees what the server's connections see."""
    with postgres.connect() as connection:
        yield connection


SPLIT = [
    # arithmetic, comparison, logic
    "select id + 1, id * k - 3, -id, id % 2 from split.t",
    "select id / k * 100 from split.t where k <> 0",
    "select n / 3 * 100, n * 1.5, f * 2, f ^ 2, abs(f), @ f, |/ f from split.t",
    "select id from split.t where id + 1 > 5 and not (k = 3) or f > 1e2",
    "select id, id > 5, ok is not true, name is null, id is distinct from 5 from split.t",
    "select id is distinct from 5 from split.t where name is not distinct from 'n1'",
    "select id from split.t where id > -5 and n > -1.5 and f <> 'NaN'",
    "select id from split.t where ok and k between 2 and 5 and k between symmetric 5 and 2",
    # CASE and its kin
    "select case when id > 1000 then 'a' when name = 'n1' then name else upper(name) end from split.t",
    "select case k when 1 then 'one' when 2 then 'two' end, coalesce(name, v, 'none') from split.t",
    "select nullif(k, 1), greatest(id, k, 5), least(n, 3) from split.t",
    # text
    "select name || '-' || v, name || id || 'x', id || ' of ' || n from split.t",
    "select id from split.t where name like 'n%' and v ilike 'V1' and name not like '%3' and b like 'b1%'",
    r"select id from split.t where name ~ '^n[0-3]$' and name !~* 'N2' and v ~ '\d' and name similar to 'n(1|3)'",
    "select upper(name), lower(name), length(name), md5(name), substr(name, 2), left(name, 1), right(name, 1) from split.t",
    "select substring(name from 2 for 1), substring(name, 1, 1), position('n' in name), trim(both 'n' from name) from split.t",
    "select overlay(name placing 'x' from 1), trim(name), btrim(name, 'n'), replace(name, 'n', 'm'), repeat(name, 2) from split.t",
    "select regexp_replace(name, '[0-9]', 'x'), split_part(now, ' ', 2), strpos(name, 'n'), starts_with(name, 'n') from split.t",
    # numbers and functions, PostgreSQL's own and users'
    "select round(n, 1), round(n), floor(f), trunc(n), mod(id, 7), power(f, 2), sqrt(f), width_bucket(f, 0, 100, 5) from split.t",
    "select split.kept(id), split.inlined(id), split.many(id, 1, 2), pg_catalog.upper(name) from split.t",
    "select id from split.t where split.kept(id) > 10 and pg_catalog.length(name) > 0",
    # casts
    "select id::text, k::int8, n::numeric(5, 1), cast(f as int), v::varchar(2), b::text, id::double precision from split.t",
    "select '5'::int8 + id, cast('1.5' as numeric) * n, float8 '2' * f, bool 't' from split.t",
    "select u::text, encode(raw, 'hex'), raw from split.t where u <> 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
    # arrays
    "select arr[1], arr[2] + 1, array_length(arr, 1), arr || 5, cardinality(arr) from split.t",
    "select id from split.t where k = any(array[1, 2]) and k in (1, 2, 3) and id <> all('{4,5}'::int8[]) and 2 = any(arr)",
    "select id from split.t where name in ('n1', 'n2') and k not in (7, 8)",
    "select arr::text, arr = '{1,2}'::int[], arr[1:1] || array[id, 1] from split.t",
    # dates and times, compared with their own
    "select id from split.t where day < date '2024-03-01' - 5",
    "select id, ts, day, plain, mood, j from split.t where ts < '2024-02-01 12:00:00+00' and day >= '2024-01-05'",
    "select id from split.t where day between date '2024-01-05' and '2024-02-01' and plain > timestamp '2024-01-02'",
    "select id, day = '2024-01-05', day is null, ts >= ts from split.t where day in ('2024-01-05', '2024-01-06')",
    "select case when day < '2024-06-01' then 'early' else 'late' end from split.t where plain is not null",
    "select id from split.t where day > '2024-01-05'::date and ts > cast('2024-01-05 00:00Z' as timestamptz)",
    # names
    """select "now", upper, upper(upper), "upper"('x'), "Größe [x]" + 1 as "[y]", t."Größe [x]" from split.t""",
    """select length("("), left("(", 1), substr("(" || ')', length("(")) from split.t""",
    """select x.id, "x".name, x.* from split.t as x where x.id > 5""",
    """select "A ""b".id + 1 from split.t "A ""b" where "A ""b".k = 1""",
    'select id + 1, name from split."T""ä [1].x" where length(name) = 2',
    "select id + 1 from split.tÄ where tÄ.id > 5",
    "select split.t.id, t.k + split.t.k from split.t where split.t.id > 5",
    "SELECT\n id /* from split.one where 1 */ + 1 -- from\nFROM /* a */ Split . /* b */ T -- where\n WHERE id > 5 -- and false",
    "select name from split.t where now <> $q$ from split.one where $q$ and name <> $$x$$;; -- end",
    "select substring(name from 1) from split.t where 'from' <> name",
    # what is where a row lies is the same in every session: it is not written anew, only marked
    "select ctid, tableoid, id from split.t",
    "select id from split.t where 1 = 1",
    # partitions
    "select id, name from split.p",
    "select p.id + 1, upper(p.name), p.day from split.p where p.day >= '2024-02-01' and p.id > 7",
    "select x.id, x.name || x.id from split.p x where length(x.name) > 0",
    "select id, name from split.p where day < '2024-08-01'",
    "select * from split.q",
    "select q.* from split.q where q.id % 3 = 1",
    "select tableoid, id from split.q",
]  # fmt: skip


@pytest.mark.parametrize("sql", SPLIT)
def test_split(client: flight.FlightClient, oracle: psycopg.Connection, sql: str) -> None:
    scan = scan_of(client, command(sql))
    assert scan["streams"] > 1, scan
    assert require_same(client, oracle, sql) > 0


WHOLE = [
    # the moment and the user
    ("select id from split.t where ts < now()", "the condition uses now(), which is stable"),
    ("select id from split.t where ts > now() - interval '1 day'", "the condition uses now(), which is stable"),
    ('select "now"() is null, id from split.t', "the select list uses now(), which is stable"),
    ("select pg_catalog.now() is null from split.t", "the select list uses now(), which is stable"),
    ("select clock_timestamp() is null from split.t", "clock_timestamp(), which is volatile"),
    ("select id, random() < 2 from split.t", "the select list uses random(), which is volatile"),
    ("select id from split.t where random() < 2", "the condition uses random(), which is volatile"),
    ("select id from split.t where random() < 2 and id > 5", "the condition uses random(), which is volatile"),
    ("select gen_random_uuid() is null from split.t", "gen_random_uuid(), which is volatile"),
    ("select id, current_date > '2020-01-01' from split.t", "the select list uses CURRENT_DATE"),
    ("select id, current_timestamp is null from split.t", "uses CURRENT_TIMESTAMP"),
    ("select id, current_timestamp(3) is null from split.t", "current_timestamp(), which is not in the catalog"),
    ("select id, localtime is null from split.t", "uses LOCALTIME"),
    ("select id from split.t where plain < localtimestamp", "the condition uses LOCALTIMESTAMP"),
    ("select id, current_user from split.t", "uses CURRENT_USER"),
    ("select id, session_user, user from split.t", "uses SESSION_USER"),
    ("select id, current_catalog from split.t", "uses CURRENT_CATALOG"),
    ("select id, current_schema from split.t", "uses CURRENT_SCHEMA"),
    ("select id from split.t where name <> current_user", "the condition uses CURRENT_USER"),
    ("select current_setting('TimeZone') from split.t", "current_setting(), which is stable"),
    ("select pg_backend_pid() > 0 from split.t", "pg_backend_pid(), which is "),
    ("select pg_typeof(id)::text from split.t", "pg_typeof(), which is stable"),
    # literals that are read anew in each session
    ("select id from split.t where day < 'today'", "the statement uses the literal 'today'"),
    ("select id from split.t where ts < ' NOW '", "the statement uses the literal ' NOW '"),
    ("select id from split.t where day < $$tomorrow$$", "the literal 'tomorrow'"),
    ("select id from split.t where day < date 'yesterday'", "the literal 'yesterday'"),
    ("select id from split.t where ts < '04:05today'", "the literal '04:05today'"),
    ("select id from split.t where day < 'to'\n'day'", "a literal in parts"),
    (r"select id from split.t where day < E'tod\x61y'", "a literal of an unusual form"),
    (r"select id from split.t where day < U&'tod\0061y'", "a literal of an unusual form"),
    ("select id from split.t where day in ('2024-01-05', 'today')", "the literal 'today'"),
    ("select id from split.t where split.of_date('today') = 1", "the literal 'today'"),
    ("select id from split.t where ('now' at time zone 'utc') > ('2020-01-01' at time zone 'utc')", "the literal 'now'"),
    ("select id from split.t where varchar(9) 'x' < name", "a literal in parts, or of a type with a modifier"),
    ("select id from split.t where timestamp(3) '2024-01-01' < plain", "timestamp(), which "),
    ("select id from split.t where split.of_mood('sad') = 1", "of_mood(), which can take split.mood"),
    ("select id from split.t where split.of_table('split.t') = 1", "of_table(), which can take regclass"),
    ("select id from split.t where regclass('split.t') is not null", "regclass(), which is stable"),
    ("select id from split.t where 'split.t'::regclass = 'split.t'::regclass", "the statement casts to regclass"),
    ("select id from split.t where regclass 'split.t' = regclass 'split.t'", "the statement uses a literal of type regclass"),
    # functions that depend on settings, or are not immutable for every type
    ("select date_trunc('day', ts) from split.t", "the select list uses date_trunc(), which is stable"),
    ("select extract(year from ts), extract(year from day) from split.t", "extract(), which is stable"),
    ("select to_char(n, '999.99'), to_char(ts, 'YYYY') from split.t", "to_char(), which is stable"),
    ("select age(ts) is null from split.t", "age(), which can return interval"),
    ("select concat(name, id), format('%s', id) from split.t", "concat(), which is stable"),
    ("select date_part('hour', plain) from split.t", "date_part(), which is stable"),
    ("select to_timestamp(f) from split.t", "to_timestamp(), which can return timestamp with time zone"),
    ("select make_date(2024, 1, k + 1) from split.t", "make_date(), which can return date"),
    ("select split.promised(id) from split.t", "the select list uses promised(), which is stable"),
    ("select split.hidden(id) from split.t", "the statement uses hidden(), which is stable"),
    ("select split.defaulted(id) from split.t", "the select list uses now(), which is stable"),
    ("select split.dated(id) from split.t", "dated(), which can return date"),
    # dates and times that are more than compared with their own
    ("select name || ts from split.t", "the select list does more with a date or time"),
    ("select day::text, ts::text from split.t", "the select list does more with a date or time"),
    ("select ts::date from split.t", "the statement casts to date"),
    ("select id from split.t where ('2024-01-0' || k % 9 + 1)::timestamptz is not null", "the statement casts to timestamptz"),
    ("select cast('2024-' || '01-0' || '1' as date), id from split.t", "the statement casts to date"),
    ("select day + 1 from split.t", "the select list does more with a date or time"),
    ("select id from split.t where ts > day", "the condition does more with a date or time"),
    ("select id from split.t where ts - interval '1 day' < '2024-03-01'", "the statement uses a literal of type interval"),
    ("select id from split.t where day < plain", "the condition does more with a date or time"),
    ("select coalesce(day, '2024-01-01') from split.t", "the select list does more with a date or time"),
    ("select ts at time zone 'utc' from split.t", "the select list uses AT, which is not known"),
    ("select id from split.t where case day when '2024-01-05' then true end", "the condition does more with a date or time"),
    # other types
    ("select id from split.t where mood = 'sad'", "the condition uses"),
    ("select mood::text from split.t", "the select list uses mood, whose type is not known to be safe"),
    ("select j -> 'g', id from split.t", "the select list uses j, whose type is not known to be safe"),
    ("select id::regclass::text from split.t where k > 3", "the statement casts to regclass"),
    ("select id::oid from split.t", "the statement casts to oid"),
    ("select k::bit(3)::text from split.t", "the statement casts to bit"),
    ('select name::"char"::text from split.t', "the statement casts to char"),
    ("select array_to_string(arr, ',') from split.t", "array_to_string(), which is stable"),
    ("select row(id, name)::text from split.t", "row(), which is not in the catalog"),
    ("select t::text from split.t", "t.*"),
    ("select t from split.t", "t.*"),
    ('select id from split.t where name < \'n3\' collate "C"', "COLLATE"),
    ("select name is normalized from split.t", "uses NFC"),
    ("select json_value(j, '$.g') from split.t", "json_value(), which is not in the catalog"),
    # system columns that others' writing changes, and a condition on places
    ("select xmin::text, id from split.t", "uses xmin, whose type is not known to be safe"),
    ("select xmin, id from split.t", "the select list has xmin, which changes while others write"),
    ("select xmax, cmin, cmax, id from split.t", "the select list has xmax, which changes while others write"),
    ("select ctid::text, id from split.t", "the select list uses ctid, whose type is not known to be safe"),
    ("select id from split.t where ctid < '(9,0)'", "PostgreSQL reads it by Tid Range Scan"),
    ("select id from split.t where ctid > '(1,0)'", "ctid"),
    ("select tableoid::regclass::text, id from split.t", "the statement casts to regclass"),
    # more than one scan
    ("select id from split.t where exists (select 1 from split.one)", "the statement has a subquery"),
    ("select id, (select a from split.one) from split.t", "the statement has a subquery"),
    ("select id from split.t where id = any (array(select 5))", "the statement has a subquery"),
    ("select id from split.t where k in (select a from split.one)", "the statement has a subquery"),
    ("select id, generate_series(1, 2) from split.t", "PostgreSQL reads it by ProjectSet"),
    ("select id, unnest(arr) from split.t", "PostgreSQL reads it by ProjectSet"),
    ("select regexp_split_to_table(name, 'n') from split.t", "PostgreSQL reads it by ProjectSet"),
    ("select count(*), sum(id) from split.t", "PostgreSQL reads it by Aggregate"),
    ("select upper(max(name)) from split.t", "PostgreSQL reads it by Aggregate"),
    ("select id, row_number() over () > 0 from split.t", "PostgreSQL reads it by WindowAgg"),
    ("select distinct k from split.t", "the statement has distinct"),
    ("select id from split.t limit 5", "the statement has limit"),
    ("select id from split.t offset 5", "the statement has offset"),
    ("select id from split.t order by id + 1", "the statement has order"),
    ("select k from split.t group by k", "the statement has group"),
    ("select id from split.t tablesample system (50) repeatable (1)", "the statement does not read one table"),
    ("select id from split.t union select 1", "the statement is no plain SELECT"),
    ("select id from split.t union all select id from split.t", "the statement is no plain SELECT"),
    ("select id from only split.t", "the statement does not read one table"),
    ("select id from split.t *", None),
    ("select t.id from split.t, split.one", "the statement "),
    ("select x.a from split.t as x (a)", "the table's columns are renamed"),
    ("select id from (select * from split.t) q", "the statement does not read one table"),
    ("with x as (select 1) select id from split.t", "the statement has with"),
    ("select id from split.t where false", "PostgreSQL reads it by Result"),
    # operators by a longer name
    ("select id operator(pg_catalog.+) 1 from split.t", "operator(), which is not in the catalog"),
    # partitions
    ("select * from split.p", "a partition has its columns in another order"),
    ("select * from split.p where day < '2024-08-01'", "a partition has its columns in another order"),
    ("select split.p.id from split.p", "PostgreSQL refused a part"),
    ("select p.*::text from split.p", None),
    ("select id from split.p where day < now()", "the condition uses now(), which is stable"),
    ("select id from split.p where day > '2030-01-01'", "PostgreSQL reads it by Result"),
    ("select tableoid::regclass::text from split.p", "the statement casts to regclass"),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "why"), WHOLE)
def test_whole(client: flight.FlightClient, oracle: psycopg.Connection, sql: str, why: str | None) -> None:
    scan = scan_of(client, command(sql))
    assert scan["streams"] == 1, scan
    assert scan["why"]
    assert why is None or why in scan["why"]
    require_same(client, oracle, sql)


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("select id from split.t for update", "the statement has locks"),
        ("select nextval('split.s') from split.t", "nextval(), which is volatile"),
        ("select currval('split.s') from split.t", "currval(), which is volatile"),
        ("select set_config('TimeZone', 'UTC', false) from split.t", "set_config(), which is volatile"),
        ("select pg_notify('x', 'y') from split.t", "pg_notify(), which is volatile"),
    ],
)
def test_what_writes_stays_whole(
    client: flight.FlightClient, database: psycopg.Connection, sql: str, why: str
) -> None:
    database.execute("create sequence if not exists split.s")
    try:
        scan = scan_of(client, command(sql))
    except pa.ArrowInvalid as failure:
        assert "read-only" in str(failure)
    else:
        assert scan["streams"] == 1
        assert why in scan["why"]
