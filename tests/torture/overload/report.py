"""Overload and shutdown together: runs both, says what broke a bound, and prints the table."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from demo.postgres import EmbeddedPostgres
from tests.helpers.server import ServerProcess
from tests.torture.overload.calls import FLAGS, METADATA, READS, REFUSED, Timed, full, timed
from tests.torture.overload.shutdowns import CLIENTS, GRACE_S, SPARE_S, Shutdown, shut_down
from tests.torture.soak.samples import Sampler

REFUSED_WITHIN_MS = 100.0
FREE, FULL = "connections free", "all in use"


@dataclass(frozen=True)
class Report:
    """How calls were answered, by the server's state, and how servers ended."""

    calls: dict[str, list[Timed]]
    shutdowns: list[Shutdown]

    @property
    def problems(self) -> list[str]:
        """What broke a bound."""
        found = [f"with {end.clients} clients the server took {end.seconds:.1f} s to stop, status {end.status}"
                 for end in self.shutdowns if not end.in_time or end.status != 0]  # fmt: skip
        for state, calls in self.calls.items():
            for call in calls:
                wrong = set(call.outcomes) - {"answered", REFUSED}
                found += [f"{call.name}, {state}: {outcome}" for outcome in wrong]
                late = call.percentile_ms(99)
                if call.outcomes[REFUSED] and late >= REFUSED_WITHIN_MS:
                    found.append(f"{call.name}, {state}: refused after {late:.0f} ms")
                if call.outcomes[REFUSED] and (state == FREE or call.name in METADATA):
                    found.append(f"{call.name}, {state}: refused")
        return found


def run(calls: int, shutdowns: int) -> Report:
    """Fill a server, and call it; then start servers and stop them, with each kind of client in turn."""
    found: dict[str, list[Timed]] = {}
    with ExitStack() as stack:
        postgres = stack.enter_context(EmbeddedPostgres.start())
        with ServerProcess(postgres.dsn(), *FLAGS) as server:
            sampler = Sampler(server, postgres)
            found[FREE] = timed(server, METADATA | READS, calls)
            with full(server, lambda: sampler.look().waiting):
                found[FULL] = timed(server, METADATA | READS, calls)
        ends = [shut_down(postgres, CLIENTS[number % len(CLIENTS)]) for number in range(shutdowns)]
    return Report(found, ends)


def show(report: Report, console: Console) -> None:
    """Print the tables."""
    table = Table("call", "connections", "outcomes", "p50 ms", "p99 ms")
    for state, calls in report.calls.items():
        for call in calls:
            outcomes = ", ".join(f"{name} {count}" for name, count in call.outcomes.items())
            table.add_row(
                call.name, state, outcomes, f"{call.percentile_ms(50):.1f}", f"{call.percentile_ms(99):.1f}"
            )
    console.print(table)
    table = Table("SIGTERM with clients", "in time", f"slowest, of {GRACE_S + SPARE_S:g} s")
    for clients in CLIENTS:
        ends = [end for end in report.shutdowns if end.clients == clients]
        if ends:
            slowest = max(end.seconds for end in ends)
            table.add_row(clients, f"{sum(end.in_time for end in ends)} of {len(ends)}", f"{slowest:.2f} s")
    console.print(table)
    console.print(*report.problems, sep="\n", markup=False)
