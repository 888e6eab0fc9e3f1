"""The command `pgflight`: queries to files, pipes and terminals, and a look at what a server offers."""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import typer
from pyarrow import types
from rich import filesize

from pgflight import client, console, files, text
from pgflight.interrupt import exit_on_sigterm, interruptible
from pgflight.reader import Reader

_INTERRUPTED = 130
_PIPE_CLOSED = 141

app = typer.Typer(
    help="Read PostgreSQL through a pgflight server, as Arrow.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Uri = Annotated[
    str, typer.Option(envvar="PGFLIGHT_URI", help="grpc://host:port, grpc+tls://… or grpc+unix:///path.")
]
Token = Annotated[str | None, typer.Option(envvar="PGFLIGHT_TOKEN", help="Bearer token.")]
User = Annotated[
    str | None, typer.Option(envvar="PGFLIGHT_USER", help="PostgreSQL user; the password is PGFLIGHT_PASSWORD.")
]
RootCerts = Annotated[
    Path | None, typer.Option("--tls-root-certs", help="PEM file of certificates to trust.", dir_okay=False)
]
Timeout = Annotated[float | None, typer.Option(help="Deadline of every call, in seconds.", min=0)]
Query = Annotated[str, typer.Argument(help="SQL, or a table: name or schema.name. - reads SQL from stdin.")]
Params = Annotated[
    list[str] | None,
    typer.Option("--param", "-p", help="Value for $1, $2 … as text; null is NULL. Repeatable."),
]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", "-O", help="Option of the server, name=value, e.g. profile=plain. Repeatable."),
]


class Format(StrEnum):
    """Forms of output on stdout."""

    TABLE = "table"
    CSV = "csv"
    TSV = "tsv"


@app.command()
def query(
    sql: Query,
    uri: Uri,
    token: Token = None,
    user: User = None,
    tls_root_certs: RootCerts = None,
    timeout: Timeout = None,
    param: Params = None,
    option: Options = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help=f"File to write, by its suffix: {', '.join(files.WRITERS)}."),
    ] = None,
    form: Annotated[
        Format | None,
        typer.Option("--format", help="Form on stdout (default: table on a terminal, else csv)."),
    ] = None,
    limit_rows: Annotated[int, typer.Option("--limit-rows", "-n", help="Rows shown of a table.", min=0)] = 50,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Do not run it: show how it would be read.")] = False,
) -> None:
    """Run a query, or read a table, into a file, a pipe or the terminal.

    A file appears under its name when it is complete, and not at all after an error.
    """
    with _reported(), client.connect(uri, **_connection(token, user, tls_root_certs, timeout)) as server:
        if output is not None:
            files.writer_for(output)  # an unusable name is better told before the query runs
        if explain:
            console.show_json(interruptible(lambda: server.explain(*_request(sql, param), **_options(option))))
            return
        reader = interruptible(lambda: server.query(*_request(sql, param), **_options(option)))
        if output is not None:
            _to_file(reader, output, quiet)
        elif form is Format.TABLE or (form is None and console.on_terminal()):
            _to_table(reader, limit_rows, quiet)
        else:
            _to_stdout(reader, form or Format.CSV, quiet)


@app.command()
def tables(
    uri: Uri,
    pattern: Annotated[str | None, typer.Argument(help="LIKE pattern over schema.name, e.g. public.%.")] = None,
    token: Token = None,
    user: User = None,
    tls_root_certs: RootCerts = None,
    timeout: Timeout = None,
) -> None:
    """List the tables that the server offers, with its estimates of their size."""
    with _reported(), client.connect(uri, **_connection(token, user, tls_root_certs, timeout)) as server:
        found = interruptible(lambda: server.tables(pattern))
        console.show(
            ["schema", "table", "columns", "rows (estimate)", "bytes (estimate)"],
            [
                (
                    table.schema_name,
                    table.name,
                    str(len(table.columns)),
                    _count(table.estimated_rows),
                    _count(table.estimated_bytes),
                )
                for table in found
            ],
            numbers=[False, False, True, True, True],
        )


@app.command()
def schema(
    sql: Query,
    uri: Uri,
    token: Token = None,
    user: User = None,
    tls_root_certs: RootCerts = None,
    timeout: Timeout = None,
    param: Params = None,
    option: Options = None,
) -> None:
    """Show the columns of a query or a table, and their Arrow types."""
    with _reported(), client.connect(uri, **_connection(token, user, tls_root_certs, timeout)) as server:
        found = interruptible(lambda: server.schema(*_request(sql, param), **_options(option)))
        console.show(
            ["column", "type", "postgresql"],
            [(field.name, str(field.type), _postgresql_type(field)) for field in found],
        )


@app.command()
def info(
    uri: Uri, token: Token = None, user: User = None, tls_root_certs: RootCerts = None, timeout: Timeout = None
) -> None:
    """Show what the server says about itself, as JSON."""
    with _reported(), client.connect(uri, **_connection(token, user, tls_root_certs, timeout)) as server:
        console.show_json(interruptible(server.info))


def main() -> None:
    """Run the command line."""
    exit_on_sigterm()
    app()


@contextmanager
def _reported() -> Iterator[None]:
    """Turn errors into one line and an exit code; interrupts into the code that shells expect."""
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None
    except BrokenPipeError:
        raise typer.Exit(_PIPE_CLOSED) from None
    except (pa.ArrowException, OSError, ValueError) as error:
        console.fail(error)
        raise typer.Exit(1) from None


def _to_file(reader: Reader, path: Path, quiet: bool) -> None:
    started_s = time.monotonic()
    with files.replacing(path) as part:
        _pump(reader, files.writer_for(path), str(part), quiet)
    read, elapsed_s = reader.progress, time.monotonic() - started_s
    if not quiet:
        size = filesize.decimal(path.stat().st_size)
        console.note(f"{read.rows:,} rows in {elapsed_s:.1f} s, {size} in {path}")


def _to_stdout(reader: Reader, form: Format, quiet: bool) -> None:
    writer = files.tsv_writer if form is Format.TSV else files.csv_writer
    try:
        _pump(reader, writer, sys.stdout.buffer, quiet or console.on_terminal())
        sys.stdout.flush()
    except OSError:
        # What is left in the buffer cannot be written: the flush at exit must not fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def _pump(reader: Reader, open_writer: files.Writer, target: object, quiet: bool) -> None:
    def pump() -> None:
        with open_writer(target, reader.schema) as write:
            for batch in reader:
                write(batch)

    with console.progress(visible=not quiet) as callback:
        reader.on_progress(callback)
        interruptible(pump, reader.cancel)


def _to_table(reader: Reader, limit_rows: int, quiet: bool) -> None:
    with console.progress(visible=not quiet) as callback:
        reader.on_progress(callback)
        rows = interruptible(lambda: _head(reader, limit_rows + 1), reader.cancel)
    console.show_table(reader.schema.names, rows[:limit_rows], [_is_number(kind) for kind in reader.schema.types])
    if quiet:
        return
    if len(rows) <= limit_rows:
        console.note(f"{len(rows):,} rows")
    elif reader.estimated_rows:
        console.note(f"first {limit_rows:,} rows of about {reader.estimated_rows:,}")
    else:
        console.note(f"first {limit_rows:,} rows; there are more")


def _head(reader: Reader, count: int) -> list[tuple[str | None, ...]]:
    """Read the first `count` rows as text, and cancel the rest."""
    rows: list[tuple[str | None, ...]] = []
    with reader:
        for batch in reader:
            rows += text.rows(batch.slice(0, count - len(rows)))
            if len(rows) >= count:
                break
    return rows


def _postgresql_type(field: pa.Field) -> str:
    """Return the type's name in PostgreSQL, where the server tells it."""
    return str((field.metadata or {}).get(b"pg:type", b"").decode())


def _is_number(kind: pa.DataType) -> bool:
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def _connection(
    token: str | None, user: str | None, tls_root_certs: Path | None, timeout_s: float | None
) -> dict[str, Any]:
    # Not a flag: everybody on the host sees those.
    password = os.environ.get("PGFLIGHT_PASSWORD", "") if user else None
    credentials = {"token": token or None, "user": user or None, "password": password}
    return {**credentials, "tls_root_certs": tls_root_certs, "timeout_s": timeout_s}


def _request(sql: str, params: list[str] | None) -> tuple[str, list[str | None]]:
    statement = sys.stdin.read() if sql == "-" else sql
    return statement, [None if value == "null" else value for value in params or []]


def _options(pairs: list[str] | None) -> dict[str, Any]:
    return dict(_option(pair) for pair in pairs or [])


def _option(pair: str) -> tuple[str, Any]:
    """Read ``name=value``: numbers, true and false as such, anything else as text."""
    name, separator, value = pair.partition("=")
    if not separator:
        raise ValueError(f"--option takes name=value, not {pair!r}")
    try:
        parsed = json.loads(value)
    except json.JSONDecodeError:
        return name, value
    return name, value if parsed is None else parsed


def _count(number: int | None) -> str | None:
    if not console.on_terminal():
        return None if number is None else str(number)
    return "unknown" if number is None else f"{number:,}"
