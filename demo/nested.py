"""Tables of nested values: arrays of numbers and of text, and composites."""

from collections.abc import Mapping
from typing import LiteralString

from psycopg import sql

from demo.synthetic import HASH, Column, made_of

ARRAY_COLUMNS: Mapping[str, tuple[LiteralString, LiteralString]] = {
    "id": ("int8 NOT NULL", "i"),
    "numbers": ("int4[] NOT NULL", f"array(SELECT (i + n)::int4 FROM generate_series(1, {HASH} % 24) AS n)"),
    "prices": (
        "numeric(12,2)[] NOT NULL",
        f"array(SELECT ((i * n) % 100000 / 100.0)::numeric(12,2) FROM generate_series(1, {HASH} % 5) AS n)",
    ),
    "measures": ("float8[]", f"CASE WHEN i % 7 > 0 THEN array_fill(({HASH} / 1000.0)::float8, array[16]) END"),
    "tags": (
        "text[] NOT NULL",
        f"(string_to_array('red,grün,blue,,very long indeed', ','))[1:({HASH} % 6)::int4]",
    ),
}
COMPOSITE_COLUMNS: Mapping[str, tuple[LiteralString, LiteralString]] = {
    "id": ("int8 NOT NULL", "i"),
    "place": (
        "demo_place",
        f"CASE WHEN i % 9 > 0 THEN row({HASH}::float8, -i::float8, md5(i::text))::demo_place END",
    ),
    "lines": (
        "demo_line[] NOT NULL",
        f"array(SELECT row(n, n * i % 99 / 4.0, i % 5)::demo_line FROM generate_series(1, {HASH} % 4) n)",
    ),
    "during": ("int8range NOT NULL", f"int8range({HASH}, {HASH} + i % 50)"),
}
TYPES = sql.SQL("""
DO $$ BEGIN
    IF to_regtype('demo_place') IS NULL THEN
        CREATE TYPE demo_place AS (x float8, y float8, label text);
    END IF;
    IF to_regtype('demo_line') IS NULL THEN
        CREATE TYPE demo_line AS (number int8, price numeric(10,2), remark text);
    END IF;
END $$
""")


def _columns(described: Mapping[str, tuple[LiteralString, LiteralString]]) -> list[Column]:
    return [Column(name, sql.SQL(kind), sql.SQL(value)) for name, (kind, value) in described.items()]


ARRAYS = made_of("arrays", _columns(ARRAY_COLUMNS))
COMPOSITES = made_of("composites", _columns(COMPOSITE_COLUMNS), types=TYPES)
