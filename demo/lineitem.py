"""TPC-H's lineitem, made by tpchgen-cli: numerics, dates and padded characters."""

import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from typing import IO

from psycopg import sql

from demo.dataset import Connection, Dataset, Progress, copy_in

LEAST_ROWS_PER_SCALE_FACTOR = 5_700_000  # 6,001,215 at 1, a little fewer in proportion below
CHUNK_BYTES = 1 << 20

COLUMNS = """
    l_orderkey int8 NOT NULL,
    l_partkey int4 NOT NULL,
    l_suppkey int4 NOT NULL,
    l_linenumber int4 NOT NULL,
    l_quantity numeric(15,2) NOT NULL,
    l_extendedprice numeric(15,2) NOT NULL,
    l_discount numeric(15,2) NOT NULL,
    l_tax numeric(15,2) NOT NULL,
    l_returnflag char(1) NOT NULL,
    l_linestatus char(1) NOT NULL,
    l_shipdate date NOT NULL,
    l_commitdate date NOT NULL,
    l_receiptdate date NOT NULL,
    l_shipinstruct char(25) NOT NULL,
    l_shipmode char(10) NOT NULL,
    l_comment varchar(44) NOT NULL
"""


class GeneratorError(RuntimeError):
    """tpchgen-cli is not installed, or failed."""


def _store(connection: Connection, rows: int, progress: Progress) -> None:
    command = [_generator(), "csv", "--stdout", "--quiet", "--tables", "lineitem", "--scale-factor"]
    scale = str(rows / LEAST_ROWS_PER_SCALE_FACTOR)
    with subprocess.Popen([*command, scale], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None  # noqa: S101 - asked for above
            copy_in(connection, LINEITEM.table, "csv", _first_lines(process.stdout, rows), progress)
        finally:
            process.kill()  # it has more rows than were asked for


def _generator() -> str:
    found = shutil.which("tpchgen-cli", path=sysconfig.get_path("scripts")) or shutil.which("tpchgen-cli")
    if found is None:
        msg = "lineitem needs tpchgen-cli: pip install tpchgen-cli"
        raise GeneratorError(msg)
    return found


def _first_lines(source: IO[bytes], rows: int) -> Iterator[tuple[bytes, int]]:
    """Cut the generator's CSV after ``rows`` lines, its header not counted."""
    source.readline()
    while rows > 0:
        data = source.read(CHUNK_BYTES)
        if not data:
            msg = f"tpchgen-cli ended {rows} rows early"
            raise GeneratorError(msg)
        lines = data.count(b"\n")
        if lines >= rows:
            data = b"\n".join(data.split(b"\n", rows)[:rows]) + b"\n"
            lines = rows
        yield data, lines
        rows -= lines


LINEITEM = Dataset("lineitem", sql.SQL(COLUMNS), _store)
fill = LINEITEM.fill
