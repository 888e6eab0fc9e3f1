"""The command ``pgflight-server``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flight_server import startup
from flight_server.bench import bench
from flight_server.check_gds import check_gds
from flight_server.config import Settings, load
from flight_server.export.command import export
from flight_server.gpu.facts import gpu_facts
from flight_server.service import Service
from flight_server.telemetry import configure_logging
from kernels.backend import select_backend
from kernels.errors import ConnectionLostError, PgflightError, PostgresError

app = typer.Typer(
    help="Arrow Flight server in front of PostgreSQL.", no_args_is_help=True, pretty_exceptions_enable=False
)


def _help(name: str) -> str:
    return Settings.model_fields[name].description or ""


Config = Annotated[
    Path | None,
    typer.Option("--config", envvar="PGFLIGHT_CONFIG", help="TOML file with any of the settings."),
]
Dsn = Annotated[str | None, typer.Option(help=_help("dsn"))]
Decode = Annotated[str | None, typer.Option(help=_help("decode"))]


@app.command()
def serve(
    config: Config = None,
    dsn: Dsn = None,
    listen: Annotated[str | None, typer.Option(help=_help("listen"))] = None,
    login: Annotated[str | None, typer.Option(help=_help("login"))] = None,
    auth_token_file: Annotated[Path | None, typer.Option(help=_help("auth_token_file"))] = None,
    auth_tokens_file: Annotated[Path | None, typer.Option(help=_help("auth_tokens_file"))] = None,
    login_map: Annotated[Path | None, typer.Option(help=_help("login_map"))] = None,
    login_recheck_s: Annotated[float | None, typer.Option(help=_help("login_recheck_s"))] = None,
    identity_connections: Annotated[int | None, typer.Option(help=_help("identity_connections"))] = None,
    identity_idle_s: Annotated[float | None, typer.Option(help=_help("identity_idle_s"))] = None,
    oidc_jwks: Annotated[str | None, typer.Option(help=_help("oidc_jwks"))] = None,
    oidc_issuer: Annotated[str | None, typer.Option(help=_help("oidc_issuer"))] = None,
    oidc_audience: Annotated[str | None, typer.Option(help=_help("oidc_audience"))] = None,
    oidc_algorithms: Annotated[str | None, typer.Option(help=_help("oidc_algorithms"))] = None,
    oidc_claim: Annotated[str | None, typer.Option(help=_help("oidc_claim"))] = None,
    allow_plaintext: Annotated[bool | None, typer.Option(help=_help("allow_plaintext"))] = None,
    tls_cert: Annotated[Path | None, typer.Option(help=_help("tls_cert"))] = None,
    tls_key: Annotated[Path | None, typer.Option(help=_help("tls_key"))] = None,
    tls_client_ca: Annotated[Path | None, typer.Option(help=_help("tls_client_ca"))] = None,
    signing_key_file: Annotated[Path | None, typer.Option(help=_help("signing_key_file"))] = None,
    ticket_lifetime_s: Annotated[float | None, typer.Option(help=_help("ticket_lifetime_s"))] = None,
    replicas: Annotated[str | None, typer.Option(help=_help("replicas"))] = None,
    allow_writes: Annotated[bool | None, typer.Option(help=_help("allow_writes"))] = None,
    transaction_idle_s: Annotated[float | None, typer.Option(help=_help("transaction_idle_s"))] = None,
    transaction_max_s: Annotated[float | None, typer.Option(help=_help("transaction_max_s"))] = None,
    max_transactions: Annotated[int | None, typer.Option(help=_help("max_transactions"))] = None,
    snapshot_lease_s: Annotated[float | None, typer.Option(help=_help("snapshot_lease_s"))] = None,
    snapshot_max_s: Annotated[float | None, typer.Option(help=_help("snapshot_max_s"))] = None,
    max_snapshots: Annotated[int | None, typer.Option(help=_help("max_snapshots"))] = None,
    max_connections: Annotated[int | None, typer.Option(help=_help("max_connections"))] = None,
    reserved_connections: Annotated[int | None, typer.Option(help=_help("reserved_connections"))] = None,
    max_streams: Annotated[int | None, typer.Option(help=_help("max_streams"))] = None,
    max_waiting: Annotated[int | None, typer.Option(help=_help("max_waiting"))] = None,
    connection_wait_s: Annotated[float | None, typer.Option(help=_help("connection_wait_s"))] = None,
    spool_dir: Annotated[Path | None, typer.Option(help=_help("spool_dir"))] = None,
    spool_max_mib: Annotated[int | None, typer.Option(help=_help("spool_max_mib"))] = None,
    spool_min_free_mib: Annotated[int | None, typer.Option(help=_help("spool_min_free_mib"))] = None,
    file_dsn: Annotated[str | None, typer.Option(help=_help("file_dsn"))] = None,
    file_dir: Annotated[Path | None, typer.Option(help=_help("file_dir"))] = None,
    collect_mib: Annotated[int | None, typer.Option(help=_help("collect_mib"))] = None,
    memory_mib: Annotated[int | None, typer.Option(help=_help("memory_mib"))] = None,
    max_row_mib: Annotated[int | None, typer.Option(help=_help("max_row_mib"))] = None,
    statement_timeout_s: Annotated[float | None, typer.Option(help=_help("statement_timeout_s"))] = None,
    stall_timeout_s: Annotated[float | None, typer.Option(help=_help("stall_timeout_s"))] = None,
    lock_timeout_s: Annotated[float | None, typer.Option(help=_help("lock_timeout_s"))] = None,
    drain_grace_s: Annotated[float | None, typer.Option(help=_help("drain_grace_s"))] = None,
    decode: Decode = None,
    gpus: Annotated[str | None, typer.Option(help=_help("gpus"))] = None,
    gpu_memory_mib: Annotated[int | None, typer.Option(help=_help("gpu_memory_mib"))] = None,
    block_mib: Annotated[int | None, typer.Option(help=_help("block_mib"))] = None,
    pinned_blocks: Annotated[int | None, typer.Option(help=_help("pinned_blocks"))] = None,
    lease_memory_mib: Annotated[int | None, typer.Option(help=_help("lease_memory_mib"))] = None,
    lease_slab_mib: Annotated[int | None, typer.Option(help=_help("lease_slab_mib"))] = None,
    lease_client_mib: Annotated[int | None, typer.Option(help=_help("lease_client_mib"))] = None,
    lease_s: Annotated[float | None, typer.Option(help=_help("lease_s"))] = None,
    lease_socket: Annotated[Path | None, typer.Option(help=_help("lease_socket"))] = None,
    reader: Annotated[str | None, typer.Option(help=_help("reader"))] = None,
    allow_superuser: Annotated[bool | None, typer.Option(help=_help("allow_superuser"))] = None,
    http_listen: Annotated[str | None, typer.Option(help=_help("http_listen"))] = None,
    log_format: Annotated[str | None, typer.Option(help=_help("log_format"))] = None,
    log_level: Annotated[str | None, typer.Option(help=_help("log_level"))] = None,
) -> None:
    """Serve a database until SIGTERM or SIGINT.

    Every setting can also be given as PGFLIGHT_<NAME> or in the TOML file.
    """
    flags: dict[str, Any] = {name: value for name, value in locals().items() if name != "config"}
    try:
        settings = load(config, **flags)
        configure_logging(settings.log_format, settings.log_level)
        Service(settings).run()
    except PgflightError as failure:
        _stop(failure)


@app.command()
def info(
    config: Config = None,
    dsn: Dsn = None,
    decode: Decode = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show versions, the kernels' backend and why, the PostgreSQL that would be served, and GPUs."""
    try:
        settings = load(config, dsn=dsn, decode=decode)
        backend = select_backend(settings.decode)
    except PgflightError as failure:
        _stop(failure)
    facts = problem = None
    try:
        facts = startup.probe(settings.dsn.get_secret_value())
    except (ConnectionLostError, PostgresError) as failure:
        problem = str(failure)
    described = startup.describe(backend, facts, problem) | {"gpu": gpu_facts()}
    if as_json:
        typer.echo(json.dumps(described, indent=2))
    else:
        _show(described)
    raise typer.Exit(0 if facts else 1)


app.command()(export)
app.command("check-gds")(check_gds)
app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(
    bench
)


def main() -> None:
    """Run the command line."""
    app()


def _show(described: dict[str, dict[str, Any]]) -> None:
    table = Table(show_header=False, box=None, padding=(0, 2))
    for section, facts in described.items():
        table.add_row(f"[bold]{section}[/bold]")
        for name, value in facts.items():
            table.add_row(
                f"  {name}", escape(", ".join(value) or "none" if isinstance(value, list) else str(value))
            )
    Console().print(table)


def _stop(failure: PgflightError) -> None:
    Console(stderr=True).print(f"[red]error:[/red] {failure}", highlight=False, soft_wrap=True)
    sys.exit(1)
