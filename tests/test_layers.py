"""The architecture as a test: imports run downward, modules stay small, every file says what it is for."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = {"flight_sql": -1, "kernels": 0, "transport": 1, "flight_server": 2}
ELSEWHERE = {"client", "pgflight", "demo", "benchmark", "tests"}
TRANSPORT_MAY_TAKE = {"kernels.errors", "kernels.typing", "kernels.column"}
MAX_LINES = 400


def modules(package: str) -> list[Path]:
    """Return the package's files; a gate that sees nothing is no gate."""
    found = sorted((ROOT / package).rglob("*.py"))
    assert len(found) > 3
    return found


def imported(path: Path) -> set[str]:
    """Return the dotted names a file imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return names


@pytest.mark.parametrize("package", LAYERS)
def test_imports_run_downward(package: str) -> None:
    """A layer imports itself and the layers below it, nothing of the repository besides."""
    for path in modules(package):
        for name in imported(path):
            top = name.split(".")[0]
            assert top not in ELSEWHERE, f"{path} imports {name}"
            assert LAYERS.get(top, -1) <= LAYERS[package], f"{path} imports {name}"


@pytest.mark.parametrize(
    ("room", "above"),
    [("reading", ("sql", "auth", "gpu", "export", "server")), ("auth", ("sql", "gpu", "export", "server")),
     ("gpu", ("sql", "auth", "export", "server")), ("sql", ("gpu", "export", "server"))],
)  # fmt: skip
def test_rooms_of_the_server(room: str, above: tuple[str, ...]) -> None:
    """Reading knows nobody who asks for it; who calls does not matter to it, nor where its batches go."""
    for path in modules(f"flight_server/{room}"):
        for name in imported(path):
            assert not any(name.startswith(f"flight_server.{each}") for each in above), f"{path} imports {name}"


def test_transport_takes_only_vocabulary_from_kernels() -> None:
    """Movement knows errors, aliases and the column description; not what the bytes mean."""
    for path in modules("transport"):
        for name in imported(path):
            if name.startswith("kernels"):
                assert any(name == allowed or name.startswith(allowed + ".") for allowed in TRANSPORT_MAY_TAKE), (
                    f"{path} imports {name}"
                )


def test_libraries_stay_in_their_layer() -> None:
    """Flight is the server's, psycopg the transport's (and the start-up probe's), Numba the kernels'."""
    for package, forbidden in (
        ("kernels", ("psycopg", "pyarrow.flight", "socket")),
        ("transport", ("pyarrow", "numba")),
        ("flight_server", ("numba", "socket")),
    ):
        for path in modules(package):
            for name in imported(path):
                assert not name.startswith(forbidden), f"{path} imports {name}"


def test_twins_are_imported_by_the_backend_alone() -> None:
    """Nobody else knows which twin decodes."""
    for package in LAYERS:
        for path in modules(package):
            if path.is_relative_to(ROOT / "kernels" / "host") or path.name == "backend.py":
                continue
            assert not any(name.startswith("kernels.host") for name in imported(path)), path


@pytest.mark.parametrize("package", [*LAYERS, "client/pgflight", "demo", "benchmark"])
def test_modules_are_small_and_introduced(package: str) -> None:
    """No module is long, and each begins by saying what it is for."""
    for path in modules(package):
        text = path.read_text()
        assert text.count("\n") <= MAX_LINES, f"{path} is too long"
        assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"
