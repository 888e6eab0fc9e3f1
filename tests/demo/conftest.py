"""Servers and directories for the tests of the demo."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.postgres import EmbeddedPostgres


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedPostgres]:
    """A throwaway PostgreSQL 18."""
    with EmbeddedPostgres.start() as running:
        yield running


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user can enter, as pytest's own, when root runs it, is not."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)
