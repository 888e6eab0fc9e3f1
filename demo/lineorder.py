"""The fact table of the Star Schema Benchmark, made by hashing: the same rows everywhere, on every run."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import log2
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.csv
from psycopg import sql

from demo.dataset import Connection, Dataset, Progress, copy_in
from demo.hashing import Ints, Keys, draw

ORDERS_PER_CHUNK = 25_000
LINES_PER_ORDER = 7
ROWS_PER_SCALE_FACTOR = 6_000_000

PRIORITIES = ["1-URGENT", "2-HIGH", "3-MEDIUM", "4-NOT SPECIFIED", "5-LOW"]
SHIP_MODES = ["REG AIR", "AIR", "RAIL", "SHIP", "TRUCK", "MAIL", "FOB"]

FIRST_DAY = np.datetime64("1992-01-01")
ORDER_DAYS = 2406  # up to 1998-08-02, as in TPC-H

COLUMNS = """
    lo_orderkey int8 NOT NULL,
    lo_linenumber int4 NOT NULL,
    lo_custkey int4 NOT NULL,
    lo_partkey int4 NOT NULL,
    lo_suppkey int4 NOT NULL,
    lo_orderdate int4 NOT NULL,
    lo_orderpriority varchar(15) NOT NULL,
    lo_shippriority char(1) NOT NULL,
    lo_quantity int4 NOT NULL,
    lo_extendedprice int4 NOT NULL,
    lo_ordtotalprice int4 NOT NULL,
    lo_discount int4 NOT NULL,
    lo_revenue int4 NOT NULL,
    lo_supplycost int4 NOT NULL,
    lo_tax int4 NOT NULL,
    lo_commitdate int4 NOT NULL,
    lo_shipmode varchar(10) NOT NULL
"""


@dataclass(frozen=True)
class Scale:
    """How many customers, parts and suppliers there are to order from, by SSB's rules."""

    customers: int
    parts: int
    suppliers: int

    @classmethod
    def of(cls, rows: int) -> Self:
        """Follow the number of lines; below scale factor 1 everything shrinks with it."""
        factor = rows / ROWS_PER_SCALE_FACTOR
        parts = 200_000 * (1 + log2(factor)) if factor > 1 else 200_000 * factor
        return cls(max(int(30_000 * factor), 300), max(int(parts), 2000), max(int(2000 * factor), 20))


def batches(rows: int) -> Iterator[pa.RecordBatch]:
    """Make exactly ``rows`` lines, in order; the last order may be cut short, its total with it."""
    scale = Scale.of(rows)
    first = 1
    while rows > 0:
        orders = np.arange(first, first + ORDERS_PER_CHUNK, dtype=np.uint64)
        lines = 1 + draw("lines", orders, LINES_PER_ORDER)
        ends = np.cumsum(lines)
        kept = int(np.searchsorted(ends, rows)) + 1
        lines = lines[:kept]
        lines[-1] -= max(int(lines.sum()) - rows, 0)
        yield _lines(orders[:kept], lines, scale)
        rows -= int(lines.sum())
        first += ORDERS_PER_CHUNK


def _lines(orders: Keys, counts: Ints, scale: Scale) -> pa.RecordBatch:
    """Build the lines of some orders: prices in cents, dates as the number yyyymmdd."""
    order = np.repeat(np.arange(len(orders)), counts)
    starts = np.cumsum(counts) - counts
    number = np.arange(len(order)) - starts[order] + 1
    keys = orders[order] * np.uint64(LINES_PER_ORDER + 1) + number.astype(np.uint64)

    part = 1 + draw("partkey", keys, scale.parts)
    retail_price = 90_000 + (part // 10) % 20_001 + 100 * (part % 1000)
    quantity = 1 + draw("quantity", keys, 50)
    discount = draw("discount", keys, 11)
    tax = draw("tax", keys, 9)
    extended_price = quantity * retail_price
    revenue = extended_price * (100 - discount) // 100
    total = np.add.reduceat(revenue * (100 + tax) // 100, starts)
    ordered = draw("orderdat", orders, ORDER_DAYS)[order]
    buyer = draw("custkey", orders, scale.customers * 2 // 3)  # every third customer never orders

    columns = {
        "lo_orderkey": _sparse(orders)[order],
        "lo_linenumber": number,
        "lo_custkey": (3 * (buyer // 2) + 1 + buyer % 2)[order],
        "lo_partkey": part,
        "lo_suppkey": 1 + draw("suppkey", keys, scale.suppliers),
        "lo_orderdate": _dates(ordered),
        "lo_orderpriority": _words(PRIORITIES, draw("priority", orders, len(PRIORITIES))[order]),
        "lo_shippriority": pa.repeat("0", len(order)),
        "lo_quantity": quantity,
        "lo_extendedprice": extended_price,
        "lo_ordtotalprice": total[order],
        "lo_discount": discount,
        "lo_revenue": revenue,
        "lo_supplycost": 6 * retail_price // 10,
        "lo_tax": tax,
        "lo_commitdate": _dates(ordered + 30 + draw("commit", keys, 61)),
        "lo_shipmode": _words(SHIP_MODES, draw("shipmode", keys, len(SHIP_MODES))),
    }
    return pa.record_batch(columns)


def _sparse(orders: Keys) -> Ints:
    """Spread order numbers as TPC-H does: of every 32 keys the first 8 are used."""
    return ((orders >> np.uint64(3) << np.uint64(5)) | (orders & np.uint64(7))).astype(np.int64)


def _dates(days: Ints) -> Ints:
    calendar = FIRST_DAY + np.arange(ORDER_DAYS + 91)
    year = calendar.astype("datetime64[Y]").astype(np.int64) + 1970
    month = calendar.astype("datetime64[M]").astype(np.int64) % 12 + 1
    day = (calendar - calendar.astype("datetime64[M]")).astype(np.int64) + 1
    numbers: Ints = year * 10_000 + month * 100 + day
    return numbers[days]


def _words(words: list[str], choice: Ints) -> pa.Array:
    return pa.array(words).take(pa.array(choice))


def _store(connection: Connection, rows: int, progress: Progress) -> None:
    copy_in(connection, LINEORDER.table, "csv", map(_csv, batches(rows)), progress)


def _csv(batch: pa.RecordBatch) -> tuple[memoryview, int]:
    sink = pa.BufferOutputStream()
    options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="none")
    pyarrow.csv.write_csv(batch, sink, options)
    return memoryview(sink.getvalue()), batch.num_rows


LINEORDER = Dataset("lineorder", sql.SQL(COLUMNS), _store)
fill = LINEORDER.fill
