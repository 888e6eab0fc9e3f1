"""The page of settings says what the settings are."""

from __future__ import annotations

from pathlib import Path

from flight_server.config import Settings
from flight_server.reference import page

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_page_is_of_today() -> None:
    assert PAGE.read_text() == page(), "run: python -m flight_server.reference > docs/configuration.md"


def test_every_setting_is_described() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
