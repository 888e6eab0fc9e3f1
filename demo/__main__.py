"""The demo: a real PostgreSQL, two million order lines, and a reader in another process, in one command."""

import json
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import psycopg
import typer
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from demo import report
from demo.dataset import Dataset
from demo.datasets import DATASETS
from demo.distribution import DistributionError, Owner, can_enter
from demo.floor import FloorError, copy_statements, drain
from demo.lineitem import GeneratorError
from demo.postgres import EmbeddedPostgres, PostgresError
from demo.report import Figures
from demo.server import ROOT, ServerError, ServerProcess
from demo.tether import tethered
from kernels.errors import PgflightError

FAILURES = (
    DistributionError,
    PostgresError,
    ServerError,
    GeneratorError,
    FloorError,
    PgflightError,
    psycopg.Error,
    OSError,
)

HOST = "127.0.0.1"

console = Console(stderr=True, highlight=False)


class ReaderError(RuntimeError):
    """The reading process failed, and has said why."""


@dataclass(frozen=True)
class Plan:
    """What to show."""

    dataset: Dataset
    rows: int
    streams: int
    data: Path
    listen: str
    once: bool


def main(
    rows: Annotated[int, typer.Option(min=1, help="Rows of the table.")] = 2_000_000,
    table: Annotated[str, typer.Option(help=f"Data set: {', '.join(DATASETS)}.")] = "lineorder",
    once: Annotated[bool, typer.Option("--once", help="Stop after the summary.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the server; 0: any free one.")] = 8815,
    streams: Annotated[int, typer.Option(min=1, help="Parallel COPY streams of the read.")] = 1,
    data: Annotated[Path | None, typer.Option(help="Directory of the cluster; kept between runs.")] = None,
) -> None:
    """Fill an embedded PostgreSQL, serve it over Arrow Flight, and read it from another process."""
    if table not in DATASETS:
        _fail(f"unknown data set {table!r}: choose one of {', '.join(DATASETS)}")
    if port and not _is_free(port):
        _fail(f"port {port} of {HOST} is taken: name another one with --port, or 0 for any")
    signal.signal(signal.SIGTERM, _exit_in_order)
    plan = Plan(DATASETS[table], rows, streams, data or _default_directory(), f"grpc://{HOST}:{port}", once)
    try:
        run(plan)
    except ReaderError:
        raise typer.Exit(1) from None
    except FAILURES as error:
        _fail(str(error))
    except KeyboardInterrupt:
        console.print("interrupted")
        raise typer.Exit(130) from None


def run(plan: Plan) -> None:
    """Start everything, show it, and stop everything, whatever happens in between."""
    with console.status("starting PostgreSQL …"):
        postgres = EmbeddedPostgres.start(plan.data, auth="scram-sha-256")
    with postgres:
        console.print(f"PostgreSQL {postgres.version} runs in {plan.data} (port {postgres.port})")
        fill(plan, postgres.dsn())
        with console.status("starting the server …"):
            server = serve(plan, postgres.dsn())
        with server:
            console.print(f"pgflight serves it at [bold]{server.uri}[/]")
            show(plan, postgres.dsn(), server.uri)
            if not plan.once:
                console.print(report.how_to_connect(server.uri, plan.dataset.table))
                stay(server)


def fill(plan: Plan, dsn: str) -> None:
    """Fill the table, with a progress bar, unless an earlier run has."""
    count, elapsed = MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(
        TextColumn("filling {task.description}"), BarColumn(), count, elapsed, console=console
    ) as progress:
        task = progress.add_task(plan.dataset.table, total=plan.rows)
        plan.dataset.fill(dsn, plan.rows, progress=lambda done: progress.update(task, completed=done))


def serve(plan: Plan, dsn: str) -> ServerProcess:
    """Start the server; the password travels in its environment."""
    known = conninfo_to_dict(dsn)
    password = str(known.pop("password"))
    return ServerProcess.start(
        make_conninfo("", **known),
        listen=plan.listen,
        log=plan.data / "server.log",
        environment={"PGPASSWORD": password},
    )


def show(plan: Plan, dsn: str, uri: str) -> None:
    """Read the table in another process, with PostgreSQL's bare speed measured before and after."""
    statements = copy_statements(dsn, plan.dataset.table, plan.streams)
    with console.status("measuring PostgreSQL alone …"):
        before = drain(dsn, *statements)
    figures = read(plan, uri)
    with console.status("measuring PostgreSQL alone, again …"):
        after = drain(dsn, *statements)
    floor = min(before, after, key=lambda drained: drained.seconds)
    console.print(report.summary(figures, floor))


def read(plan: Plan, uri: str) -> Figures:
    """Run the reading side to its end; its words go straight to the terminal."""
    options = [uri, plan.dataset.table, "--json", "--streams", str(plan.streams)]
    command = tethered([sys.executable, "-m", "demo.read", *options], death_signal=signal.SIGTERM)
    done = subprocess.run(command, stdout=subprocess.PIPE, cwd=ROOT, check=False)
    if done.returncode != 0:
        raise ReaderError
    return Figures(**json.loads(done.stdout))


def stay(server: ServerProcess) -> None:
    """Keep serving until Ctrl-C."""
    try:
        server.wait()
    except KeyboardInterrupt:
        console.print("\nstopping")


def _default_directory() -> Path:
    """Beside the code; for root, whose home PostgreSQL's user may not enter, where system services live."""
    home = ROOT / ".demo"
    return home if can_enter(ROOT, Owner.needed()) else Path("/var/lib/pgflight-demo")


def _is_free(port: int) -> bool:
    """Whether the server will be able to listen: better known before a minute of filling."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) != 0


def _exit_in_order(signum: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    raise SystemExit(128 + signum)


def _fail(message: str) -> NoReturn:
    console.print(f"[red]error:[/] {escape(' '.join(message.split()))}", soft_wrap=True)
    raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
