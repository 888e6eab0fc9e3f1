"""The settings as a page of the documentation: ``python -m flight_server.reference > docs/configuration.md``."""

from __future__ import annotations

from typing import Any

import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from flight_server.config import Settings

HEAD = """# Configuration

Each setting is a key of the TOML file (`--config`) and a variable `PGFLIGHT_<NAME>`; most are flags of `serve`
too. Flags win over the environment, that over the file. `python -m flight_server.reference` writes this page.

| Setting | Default | What it does |
|---|---|---|
"""


def page() -> str:
    """Return the page, in Markdown."""
    return HEAD + "".join(_row(name, field) for name, field in Settings.model_fields.items())


def _row(name: str, field: FieldInfo) -> str:
    text = (field.description or "").replace("|", "\\|")
    return f"| `{name}` | {_default(field.default)} | {text} |\n"


def _default(value: Any) -> str:
    shown = value.get_secret_value() if isinstance(value, SecretStr) else value
    if shown is None or shown == "":
        return "none"
    return f"`{str(shown).lower() if isinstance(shown, bool) else shown}`"


if __name__ == "__main__":
    typer.echo(page(), nl=False)
