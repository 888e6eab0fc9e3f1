"""The contestants by name, each with the function that a process of its own runs."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Group = Literal["floor", "pgflight", "peer"]


@dataclass(frozen=True)
class Contestant:
    """One way to read a table.

    Attributes
    ----------
    name
        For the command line and the JSON.
    title
        For people.
    group
        Floors decode nothing; everybody else ends with Arrow.
    function
        ``module:function`` of a `benchmark.target.Read`; only its own process imports it.
    parallel
        Whether it reads by several streams.
    module, program
        What must be installed, beside the server's own dependencies.
    """

    name: str
    title: str
    group: Group
    function: str
    parallel: bool = False
    module: str | None = None
    program: str | None = None

    @property
    def missing(self) -> str | None:
        """The name of what it needs and is not installed."""
        if self.module is not None and importlib.util.find_spec(self.module) is None:
            return self.module
        return self.program if self.program is not None and shutil.which(self.program) is None else None


COPY_FLOOR = "copy-floor"
DATAROW_FLOOR = "datarow-floor"
PARALLEL = "-parallel"
REFERENCE = "psycopg"
"""Whose values the others must agree with: its loaders read the same bytes one by one, in other code."""

ADBC = "adbc_driver_postgresql"
FLIGHT_SQL = "adbc_driver_flightsql"
DUCKDB = "duckdb_extension_postgres_scanner"

CONTESTANTS: Sequence[Contestant] = (
    Contestant(COPY_FLOOR, "COPY, drained", "floor", "benchmark.floor:copy"),
    Contestant(DATAROW_FLOOR, "DataRow, drained", "floor", "benchmark.floor:data_rows"),
    Contestant("pgflight", "pgflight", "pgflight", "benchmark.ours:raw"),
    Contestant("pgflight-copy", "pgflight, framing=copy", "pgflight", "benchmark.ours:raw_copy"),
    Contestant("pgflight-client", "pgflight client, batches", "pgflight", "benchmark.ours:batches"),
    Contestant("pgflight-table", "pgflight client, table", "pgflight", "benchmark.ours:table"),
    Contestant(
        "adbc-flightsql", "ADBC Flight SQL, batches", "pgflight", "benchmark.flight_sql:batches", module=FLIGHT_SQL
    ),
    Contestant("adbc", "ADBC, batches", "peer", "benchmark.peers.adbc:batches", module=ADBC),
    Contestant("adbc-table", "ADBC, table", "peer", "benchmark.peers.adbc:table", module=ADBC),
    Contestant("duckdb", "DuckDB scanner", "peer", "benchmark.peers.duckdb_scanner:single", module=DUCKDB),
    Contestant("connectorx", "ConnectorX", "peer", "benchmark.peers.connector_x:single", module="connectorx"),
    Contestant(REFERENCE, "psycopg rows to Arrow", "peer", "benchmark.peers.psycopg_rows:read"),
    Contestant("psql", "psql >/dev/null", "floor", "benchmark.peers.psql:read", program="psql"),
    Contestant(COPY_FLOOR + PARALLEL, "COPY, drained", "floor", "benchmark.floor:copy_ranges", True),
    Contestant(DATAROW_FLOOR + PARALLEL, "DataRow, drained", "floor", "benchmark.floor:data_row_ranges", True),
    Contestant("psql-parallel", "psql >/dev/null", "floor", "benchmark.peers.psql:parallel", True, program="psql"),
    Contestant("pgflight-parallel", "pgflight", "pgflight", "benchmark.ours:raw_parallel", True),
    Contestant(
        "pgflight-client-parallel", "pgflight client, batches", "pgflight", "benchmark.ours:batches_parallel", True
    ),
    Contestant(
        "adbc-flightsql-parallel", "ADBC Flight SQL, batches", "pgflight", "benchmark.flight_sql:batches_parallel",
        True, FLIGHT_SQL,
    ),
    Contestant(
        "duckdb-parallel", "DuckDB scanner", "peer", "benchmark.peers.duckdb_scanner:parallel", True, DUCKDB
    ),
    Contestant(
        "connectorx-parallel", "ConnectorX, partitioned", "peer", "benchmark.peers.connector_x:partitioned", True,
        "connectorx",
    ),
)  # fmt: skip
"""In the order they run, every round."""

ENDPOINTS = Contestant("pgflight-endpoints", "pgflight, endpoints", "pgflight", "benchmark.endpoints:read", True)
"""Counts rows in other processes and hands out none: for `benchmark.scaling`, where no values are compared."""

CHOSEN = Contestant("pgflight-chosen", "pgflight", "pgflight", "benchmark.ours:chosen", True)
ON_DEVICE = Contestant("pgflight-on-device", "pgflight, GPU memory", "pgflight", "benchmark.ours:on_device", True)
USED = Contestant("pgflight-used", "pgflight, used on the GPU", "pgflight", "benchmark.ours:on_device_used", True)
COPIED = Contestant("pgflight-copied", "pgflight, GPU memory", "pgflight", "benchmark.ours:on_device_copied", True)
"""Read with the options that the target names: for `benchmark.suite`."""

FLOORS = {False: (COPY_FLOOR, DATAROW_FLOOR), True: (COPY_FLOOR + PARALLEL, DATAROW_FLOOR + PARALLEL)}
"""The floors to compare with, for one stream and for several."""


class UnknownContestantError(LookupError):
    """There is no contestant of that name."""


def by_name(name: str, among: Sequence[Contestant] = CONTESTANTS) -> Contestant:
    """Find a contestant.

    Raises
    ------
    UnknownContestantError
        There is none of that name.
    """
    for contestant in among:
        if contestant.name == name:
            return contestant
    raise UnknownContestantError(
        f"unknown contestant {name!r}: choose from {', '.join(each.name for each in among)}"
    )
