"""Small queries with parameters, from many threads: ADBC through pgflight, and ADBC's own PostgreSQL driver.

Run as ``python -m benchmark.small_queries``.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import psycopg
import typer
from adbc_driver_flightsql import dbapi as flightsql
from adbc_driver_postgresql import dbapi as postgresql
from rich.console import Console
from rich.table import Table

from benchmark.setting import pgflight_server
from demo.postgres import EmbeddedPostgres

SQL = "select id, label from small where id = $1"
ROWS = 10_000


@dataclass(frozen=True)
class Rate:
    """What one driver did.

    Parameters
    ----------
    name : str
    per_second : float
    p50_ms, p99_ms : float
        Of one query, from its execution to its rows.
    """

    name: str
    per_second: float
    p50_ms: float
    p99_ms: float


def measure(name: str, connect: Callable[[], Any], threads: int, seconds: float) -> Rate:
    """Ask for one row by its key again and again, on one connection a thread."""
    times: list[list[float]] = [[] for _ in range(threads)]
    ready, go = threading.Barrier(threads + 1), threading.Event()
    deadline = [0.0]

    def ask(number: int) -> None:
        with connect() as connection, connection.cursor() as cursor:
            cursor.execute(SQL, (number,))
            cursor.fetchall()
            ready.wait()
            go.wait()
            key = number
            while time.perf_counter() < deadline[0]:
                started = time.perf_counter()
                cursor.execute(SQL, (key % ROWS,))
                [row] = cursor.fetchall()
                times[number].append(time.perf_counter() - started)
                if row[0] != key % ROWS:
                    raise AssertionError(f"asked for {key % ROWS}, got {row}")
                key += threads

    workers = [threading.Thread(target=ask, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    ready.wait()
    deadline[0] = time.perf_counter() + seconds
    go.set()
    for worker in workers:
        worker.join()
    all_times = sorted(each for found in times for each in found)
    return Rate(
        name,
        len(all_times) / seconds,
        statistics.median(all_times) * 1e3,
        all_times[int(len(all_times) * 0.99)] * 1e3,
    )


def show(rates: list[Rate], threads: int) -> None:
    """Print what was measured."""
    table = Table(title=f"one row by its key, {threads} threads")
    for heading in ("", "queries/s", "p50 ms", "p99 ms"):
        table.add_column(heading, justify="left" if not heading else "right")
    for rate in rates:
        table.add_row(rate.name, f"{rate.per_second:,.0f}", f"{rate.p50_ms:.2f}", f"{rate.p99_ms:.2f}")
    Console().print(table)


def main(
    threads: Annotated[int, typer.Option(min=1, help="Clients at once, each with its own connection.")] = 8,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long each driver asks, in each round.")] = 5.0,
    rounds: Annotated[int, typer.Option(min=1, help="In each, all drivers in turn.")] = 3,
) -> None:
    """Compare the drivers on an embedded PostgreSQL."""
    with EmbeddedPostgres.start() as database, pgflight_server(database.dsn()) as server:
        dsn = database.dsn()
        with psycopg.connect(database.dsn(), autocommit=True) as connection:
            connection.execute("create table small (id int primary key, label text)")
            connection.execute(
                "insert into small select g, 'label ' || g from generate_series(0, %s - 1) g", [ROWS]
            )
        drivers: dict[str, Callable[[], Any]] = {
            "ADBC Flight SQL, pgflight": lambda: flightsql.connect(server.uri, autocommit=True),
            "ADBC PostgreSQL": lambda: postgresql.connect(dsn, autocommit=True),
        }
        found: dict[str, list[Rate]] = {name: [] for name in drivers}
        for _ in range(rounds):
            for name, connect in drivers.items():
                found[name].append(measure(name, connect, threads, seconds))
        show(
            [sorted(rates, key=lambda rate: rate.per_second)[len(rates) // 2] for rates in found.values()], threads
        )


if __name__ == "__main__":
    typer.run(main)
