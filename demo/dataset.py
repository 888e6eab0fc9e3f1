"""What a data set is: a table, and a way to fill it that is atomic, repeatable and skipped when done."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import psycopg
from psycopg import sql

Progress = Callable[[int], None]
"""Called with the number of rows stored so far."""

Connection = psycopg.Connection[tuple[object, ...]]

SERIES_ROWS = 50_000


def no_progress(rows: int) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Dataset:
    """A table with reproducible contents.

    Attributes
    ----------
    table
        Its name.
    columns
        Its column definitions, as in CREATE TABLE.
    store
        Writes the given number of rows over a connection whose transaction has just created the table.
    revision
        Raised when ``columns`` or ``store`` change, so that tables filled before are filled anew.
    extension
        PostgreSQL extension that the columns need.
    types
        A statement that makes the types that the columns need, unless they are there.
    """

    table: str
    columns: sql.Composable
    store: Callable[[Connection, int, Progress], None]
    revision: int = 1
    extension: str | None = None
    types: sql.SQL | None = None

    def fill(self, dsn: str, rows: int, *, progress: Progress = no_progress) -> bool:
        """Make the table hold exactly ``rows`` rows, vacuumed and analysed.

        Either the whole table appears or nothing changes. A process that comes while another one fills waits.

        Returns
        -------
        bool
            False where the table was as wanted already.
        """
        if rows < 1:
            msg = f"rows must be positive, not {rows}"
            raise ValueError(msg)
        name = sql.Identifier(self.table)
        signature = f"pgflight demo data, revision {self.revision}, {rows} rows"
        with psycopg.connect(dsn, autocommit=True) as connection:
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [self.table])
                if self._present(connection, rows, signature):
                    progress(rows)
                    return False
                connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(name))
                if self.extension is not None:
                    extension = sql.Identifier(self.extension)
                    connection.execute(sql.SQL("CREATE EXTENSION IF NOT EXISTS {}").format(extension))
                if self.types is not None:
                    connection.execute(self.types)
                connection.execute(sql.SQL("CREATE TABLE {} ({})").format(name, self.columns))
                self.store(connection, rows, progress)
                connection.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(name, signature))
            connection.execute(sql.SQL("VACUUM (FREEZE, ANALYZE) {}").format(name))
        return True

    def _present(self, connection: Connection, rows: int, signature: str) -> bool:
        comment = connection.execute("SELECT obj_description(to_regclass(%s))", [self.table]).fetchone()
        if comment != (signature,):
            return False
        count = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(self.table))
        return connection.execute(count).fetchone() == (rows,)


def copy_in(
    connection: Connection,
    table: str,
    form: Literal["csv", "binary"],
    chunks: Iterable[tuple[bytes | memoryview, int]],
    progress: Progress,
) -> None:
    """Load pieces of COPY input, each with the number of its rows, into a table made in this transaction."""
    stored = 0
    statement = sql.SQL("COPY {} FROM STDIN (FORMAT {}, FREEZE)").format(sql.Identifier(table), sql.SQL(form))
    with connection.cursor().copy(statement) as copy:
        for data, rows in chunks:
            copy.write(data)
            stored += rows
            progress(stored)


def insert_series(
    connection: Connection, table: str, select: sql.Composable, rows: int, progress: Progress
) -> None:
    """Insert ``SELECT <select> FROM generate_series(…) AS i`` for i from 1 to ``rows``, piece by piece."""
    statement = sql.SQL("INSERT INTO {} SELECT {} FROM generate_series({}::int8, {}::int8) AS i")
    for first in range(1, rows + 1, SERIES_ROWS):
        last = min(first + SERIES_ROWS - 1, rows)
        connection.execute(statement.format(sql.Identifier(table), select, first, last))
        progress(last)
