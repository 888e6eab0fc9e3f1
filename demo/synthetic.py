"""Tables that stress one thing each, made inside the server: long text, NULLs, and every scalar type."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import LiteralString

from psycopg import sql

from demo.dataset import Connection, Dataset, Progress, insert_series
from demo.edges import EDGES, Literals

#: A number in 0 … 2^32 - 1 that looks random and depends on the row's number ``i`` alone.
HASH: LiteralString = "((i * 2654435761 + 40503) % 4294967296)"

PANGRAM: LiteralString = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. "

WIDE_COLUMNS: Mapping[str, tuple[LiteralString, LiteralString]] = {
    "id": ("int8 NOT NULL", "i"),
    "digest": ("text NOT NULL", "md5(i::text)"),
    "title": ("varchar(120) NOT NULL", "initcap(translate(md5(i::text), '0123456789', 'aeiou  thn'))"),
    "greek": ("text NOT NULL", "translate(md5(i::text), '0123456789abcdef', 'αβγδεζηθικλμνξοπ')"),
    "japanese": ("text NOT NULL", f"repeat('東京都千代田区', ({HASH} % 20)::int4)"),
    "emoji": ("text", f"CASE WHEN i % 5 > 0 THEN repeat('🐘➡️🏹', 1 + ({HASH} % 8)::int4) END"),
    "body": ("text NOT NULL", f"repeat('{PANGRAM}', ({HASH} % 25)::int4)"),
    "payload": ("bytea NOT NULL", f"decode(repeat(md5(i::text), ({HASH} % 16)::int4), 'hex')"),
}

NULLABLE: Mapping[LiteralString, LiteralString] = {
    "bool": f"{HASH} % 2 = 0",
    "int2": f"({HASH} % 65536 - 32768)::int2",
    "int4": f"({HASH} - 2147483648)::int4",
    "int8": f"{HASH} * 2147483647",
    "float4": f"({HASH} / 1024.0)::float4",
    "float8": f"({HASH} / 1000.0)::float8",
    "numeric(12,2)": f"({HASH} / 100.0)::numeric(12,2)",
    "text": "md5(i::text)",
    "bytea": "decode(md5(i::text), 'hex')",
    "uuid": "md5(i::text)::uuid",
    "date": f"date '1970-01-01' + ({HASH} % 30000)::int4",
    "timestamp": f"timestamp '1970-01-01' + {HASH} * interval '0.001001 second'",
    "timestamptz": f"timestamptz '1970-01-01 00:00:00+00' + {HASH} * interval '0.001001 second'",
}
NULL_PERCENTAGES = (0, 10, 100)


@dataclass(frozen=True)
class Column:
    """A column whose value in row ``i`` (from 1) is an SQL expression."""

    name: str
    kind: sql.Composable
    value: sql.Composable


def null_columns() -> Iterator[Column]:
    """Every type at every share of NULLs: ``int4_10`` is an int4 with a tenth of them."""
    for salt, (kind, value) in enumerate(NULLABLE.items()):
        for percentage in NULL_PERCENTAGES:
            filled = sql.SQL("CASE WHEN (i * 37 + {}) % 100 >= {} THEN {} END")
            yield Column(
                f"{kind.partition('(')[0]}_{percentage}",
                sql.SQL(kind),
                filled.format(13 * salt, percentage, sql.SQL(value)),
            )


def edge_columns(edges: Mapping[LiteralString, Literals] = EDGES) -> Iterator[Column]:
    """Give every type a column, as ``c_int4`` or ``c_numeric_4_2``, that cycles through its edge values."""
    for kind, literals in edges.items():
        cycle = sql.SQL("(ARRAY[{}]::{}[])[(1 + (i - 1) % {})::int4]")
        yield Column(
            edge_column_name(kind),
            sql.SQL(kind),
            cycle.format(sql.SQL(", ").join(map(sql.Literal, literals)), sql.SQL(kind), len(literals)),
        )


def edge_column_name(kind: str) -> str:
    """Name of the column of ``types`` that has this type."""
    words = kind.replace('"', "quoted ").replace("-", "minus ").translate(str.maketrans("(,)", "   ")).split()
    return "_".join(["c", *words])


def made_of(table: str, columns: Iterable[Column], types: sql.SQL | None = None) -> Dataset:
    """Build the data set whose rows come from the columns' expressions."""
    columns = tuple(columns)
    values = sql.SQL(", ").join(column.value for column in columns)

    def store(connection: Connection, rows: int, progress: Progress) -> None:
        insert_series(connection, table, values, rows, progress)

    definitions = (sql.SQL(" ").join([sql.Identifier(column.name), column.kind]) for column in columns)
    return Dataset(table, sql.SQL(", ").join(definitions), store, types=types)


WIDE = made_of(
    "wide", (Column(name, sql.SQL(kind), sql.SQL(value)) for name, (kind, value) in WIDE_COLUMNS.items())
)
NULLS = made_of("nulls", null_columns())
TYPES = made_of("types", edge_columns())
