"""Command lines of this project, looked at without running them."""

from __future__ import annotations

import typer

from flight_server import cli as server_cli
from pgflight import cli as client_cli

PROGRAMS: dict[str, typer.Typer] = {"pgflight-server": server_cli.app, "pgflight": client_cli.app}


def check(words: list[str]) -> None:
    """Parse a command line as its program would; raise where it would refuse."""
    program, name, *arguments = words
    commands = typer.main.get_command(PROGRAMS[program]).commands
    assert name in commands, f"{program} has no command {name}"
    if "--help" not in arguments:
        commands[name].make_context(name, arguments).close()
