"""The command ``pgflight-server bench``: transports and peers side by side, or the pipeline without PostgreSQL."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmark import by_type, replay, setting, suite_plot, suite_report
from benchmark.__main__ import FAILURES, Data, Dsn, Json, Plot, console, fail, fill, prepared, told, write
from benchmark.contestants import by_name
from benchmark.environment import machine
from benchmark.progress import reading
from benchmark.replay import GENERATED, ReplayError
from benchmark.server_log import NoReadError
from benchmark.target import Target
from benchmark.transports import TransportContest, TransportResult
from transport.modes.moving import PINNED, TRANSPORTS

TABLES = {
    "lineorder": "lineorder", "lineitem": "lineitem", "wide": "wide", "vectors": "embeddings", "nulls": "nulls",
}  # fmt: skip
OUTPUTS = ("host", "cuda-ipc", "device")
ALL = "all"
TYPES_ROWS = 100_000
MIB = 1 << 20

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def bench(
    transport: Annotated[list[str] | None, typer.Option(help="A transport, or all; repeatable.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows of each data set.")] = 5_000_000,
    streams: Annotated[int, typer.Option(min=1, help="PostgreSQL sessions that read in parallel.")] = 1,
    block_mib: Annotated[int | None, typer.Option(min=1, max=64, help="Size of blocks and batches.")] = None,
    output: Annotated[
        str, typer.Option(help="host; cuda-ipc: batches stay in GPU memory; device: and are used there.")
    ] = "host",
    decode: Annotated[str, typer.Option(help="auto, cpu or gpu.")] = "auto",
    dataset: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(TABLES)}; repeatable; by default lineorder.")
    ] = None,
    against: Annotated[str, typer.Option(help="Peers, with commas: adbc, connectorx, duckdb, psycopg.")] = "",
    repeat: Annotated[int, typer.Option(min=1, help="Rounds after the warm-up.")] = 5,
    types: Annotated[bool, typer.Option("--types", help="Also measure decoding by type.")] = False,
    replay_file: Annotated[
        str, typer.Option("--replay", help="Without PostgreSQL: a spooled stream-N.wire, or generated.")
    ] = "",
    server_option: Annotated[
        list[str] | None, typer.Option(help="Of the server, such as --collect-mib=2048; repeatable.")
    ] = None,
    json_file: Json = None,
    plot_file: Plot = None,
    dsn: Dsn = None,
    data: Data = None,
) -> None:
    """Measure pgflight's transports on this machine, against the raw COPY floor and against peers.

    Data sets are made where they are missing. Values are compared with psycopg's once.
    """
    names = _transports(transport)
    if output not in OUTPUTS:
        fail(f"--output {output!r}: choose from {', '.join(OUTPUTS)}")
    with _told_more():
        if replay_file:
            _replay(replay_file, names, rows, repeat, json_file)
            return
        peers = [by_name(word.strip()).name for word in against.split(",") if word.strip()]
        options: dict[str, Any] = {} if block_mib is None else {"batch_bytes": block_mib * MIB}
        with prepared(dsn, data) as (database, facts), _server(database, server_option or [], decode) as server:
            results = []
            for name in _datasets(dataset):
                target = Target(database, server.uri, server.pid, TABLES[name], rows, streams, options)
                results.append(_measure(target, name, names, peers, output, server.log, repeat))
                console.print(suite_report.transports(results[-1]))
            figures = list(by_type.measure(database, min(rows, TYPES_ROWS), repeat)) if types else []
            if figures:
                console.print(suite_report.types(figures))
            written = {
                "transports": [each.to_json() for each in results],
                "types": [asdict(one) for one in figures],
            }
            write(json_file, facts, {"repeat": repeat, **written})
            if plot_file is not None:
                suite_plot.draw(results, figures, facts, plot_file)


def _measure(
    target: Target,
    dataset: str,
    transports: Sequence[str],
    peers: Sequence[str],
    output: str,
    log: Path,
    repeat: int,
) -> TransportResult:
    fill(target)
    with reading(console, dataset) as step:
        contest = TransportContest(target, dataset, transports, peers, output, log, step.to)
        step.of((repeat + 1) * len(contest.ways))
        contest.verify()
        for _ in range(repeat):
            contest.round()
        return contest.result()


def _replay(source: str, names: Sequence[str], rows: int, repeat: int, json_file: Path | None) -> None:
    read = replay.generated(rows) if source == GENERATED else replay.stored(Path(source))
    figures = list(replay.replay(read, [name for name in names if name != TRANSPORTS[-1]], repeat))
    console.print(suite_report.replays(read.name, figures))
    write(
        json_file, machine(), {"repeat": repeat, "source": read.name, "replay": [asdict(one) for one in figures]}
    )


@contextmanager
def _server(database: str, options: Sequence[str], decode: str) -> Iterator[Any]:
    """Start the server with a spool, and a log that can be read."""
    with tempfile.TemporaryDirectory(prefix="pgflight-bench-") as spool:
        words = [word for option in options for word in option.split("=", 1)]
        flags = ("--spool-dir", spool, "--log-format", "json", "--decode", decode, *words)
        with setting.pgflight_server(database, *flags) as server:
            yield server


@contextmanager
def _told_more() -> Iterator[None]:
    with told((*FAILURES, ReplayError, NoReadError)):
        yield


def _transports(given: Sequence[str] | None) -> list[str]:
    wanted = list(given or [PINNED])
    if ALL in wanted:
        return list(TRANSPORTS)
    for name in wanted:
        if name not in TRANSPORTS:
            fail(f"unknown transport {name!r}: choose from {', '.join((*TRANSPORTS, ALL))}")
    return list(dict.fromkeys(wanted))


def _datasets(given: Sequence[str] | None) -> list[str]:
    for name in given or ():
        if name not in TABLES:
            fail(f"unknown data set {name!r}: choose from {', '.join(TABLES)}")
    return list(given or ["lineorder"])
