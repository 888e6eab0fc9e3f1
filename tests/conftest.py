"""Fixtures by topic; importable helpers are in tests/helpers."""

from __future__ import annotations

import importlib

import numba
import pyarrow as pa
import pytest

from kernels.backend import select_backend

pytest_plugins = ["tests.fix_postgres", "tests.fix_server", "tests.fix_logins"]


def pytest_report_header() -> list[str]:
    """Say what runs: the twin of the kernels and the versions that matter."""
    backend = select_backend()
    psycopg = importlib.import_module("psycopg")
    return [
        f"pgflight: backend {backend.name}, numba {numba.__version__}, pyarrow {pa.__version__}, "
        f"psycopg {psycopg.__version__} ({psycopg.pq.__impl__})"
    ]


@pytest.fixture(scope="session")
def backend():
    """The twin of the kernels under test."""
    return select_backend()
