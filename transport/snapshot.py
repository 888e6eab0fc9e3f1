"""A snapshot that several sessions share: its name, and the proof that an imported one is the same."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kernels.errors import RequestError
from transport.catalog import Connection

NAME = re.compile(r"[0-9A-F]+(-[0-9A-F]+)*")
GONE = frozenset(("22023", "42704"))
"""What PostgreSQL answers to the name of a snapshot whose exporter has ended (before 17, since 17)."""

# Names repeat from server to server and after a restart; start time and content do not.
FACTS_SQL = """
select pg_catalog.pg_current_snapshot()::pg_catalog.text,
       pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time())::pg_catalog.text
       || '/' || oid::pg_catalog.text
from pg_catalog.pg_database where datname = pg_catalog.current_database()
"""
# How PostgreSQL writes types depends on two settings.  In recovery a snapshot does not list what is in progress.
MOMENT_SQL = f"""
select facts.*, pg_catalog.current_setting('search_path'), pg_catalog.current_setting('quote_all_identifiers')
from ({FACTS_SQL}) as facts where not pg_catalog.pg_is_in_recovery()
"""  # noqa: S608 (its own constant)
EXPORT_SQL = "select pg_catalog.pg_export_snapshot()"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An exported snapshot: good for as long as the transaction that exported it lasts.

    Parameters
    ----------
    name : str
        PostgreSQL's identifier.
    content : str
        What it sees (``pg_current_snapshot``).
    server : str
        Start time and database of the server it lives in.
    """

    name: str
    content: str
    server: str

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise RequestError("malformed snapshot identifier")

    @property
    def import_sql(self) -> str:
        """The statement that makes a new transaction see it."""
        return f"set transaction snapshot '{self.name}';"


def export(connection: Connection) -> Snapshot:
    """Export the snapshot of the transaction a connection is in."""
    exported = connection.execute(EXPORT_SQL).fetchone()
    return Snapshot(str(exported[0]) if exported else "", *facts(connection))


def facts(connection: Connection) -> tuple[str, str]:
    """Return content and server of the snapshot that a connection's transaction sees."""
    row = connection.execute(FACTS_SQL).fetchone()
    return (row[0], row[1]) if row else ("", "")


def moment(connection: Connection) -> str | None:
    """Return what is equal for two transactions that see the same catalog; None where that cannot be told."""
    row = connection.execute(MOMENT_SQL.encode()).fetchone()
    return None if row is None else "\0".join(row)
