"""What the soak reads: a table, ranges of it, and the digest of each by a way that is not the server's."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
import pyarrow as pa
import xxhash
from pyarrow import csv

TABLE, ROWS = "soaked", 200_000
BIG = f"select s.* from {TABLE} s, generate_series(1, 4)"
BIG_ROWS = 4 * ROWS
"""More than what gRPC and the sockets hold: who does not read it stalls the server."""
SIZES = (1, 100, 3000, 40_000)
COLUMNS = "id, price, ratio, label, even, at"
SCHEMA = pa.schema(
    [
        ("id", pa.int64()), ("price", pa.decimal128(15, 2)), ("ratio", pa.float64()), ("label", pa.string()),
        ("even", pa.bool_()), ("at", pa.timestamp("us", "UTC")),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """Rows of the table from one id to another, both included, and their digest."""

    first: int
    last: int
    digest: str

    @property
    def rows(self) -> int:
        """How many there are."""
        return self.last - self.first + 1


def fill(connection: psycopg.Connection) -> list[Part]:
    """Make the table; return parts of all sizes."""
    connection.execute(
        f"create table {TABLE} as select g::int8 as id, (g * 7.25)::numeric(15, 2) as price, g / 7.0::float8 as ratio, "
        f"md5(g::text) || repeat('é', g % 50) as label, case when g % 5 > 0 then g % 3 = 0 end as even, "
        f"timestamptz '2020-01-01 00:00+00' + g * interval '1.5 s' as at from generate_series(1, {ROWS}) g".encode()
    )
    connection.execute(f"alter table {TABLE} add primary key (id)".encode())
    connection.execute(f"vacuum analyze {TABLE}".encode())
    return [_part(connection, 1 + 7001 * number, size) for number in range(4) for size in SIZES]


def digest(table: pa.Table) -> str:
    """Return a digest of all values, whatever order the rows came in."""
    sink = pa.BufferOutputStream()
    csv.write_csv(table.sort_by("id"), sink)
    return str(xxhash.xxh3_128_hexdigest(sink.getvalue()))


def _part(connection: psycopg.Connection, first: int, size: int) -> Part:
    last = first + size - 1
    query = f"select {COLUMNS} from {TABLE} where id between {first} and {last}"
    rows = connection.execute(query.encode()).fetchall()
    columns = [pa.array(values, field.type) for values, field in zip(zip(*rows, strict=True), SCHEMA, strict=True)]
    return Part(first, last, digest(pa.table(columns, schema=SCHEMA)))
