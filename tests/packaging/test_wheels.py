"""The wheels hold what they should and nothing else, and run where no source tree is."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.postgres import EmbeddedPostgres
from tests.helpers.server import ServerProcess

ROOT = Path(__file__).parents[2]
SOURCES = {"server": ROOT, "client": ROOT / "client"}
PACKAGES = {"server": ("flight_server", "flight_sql", "kernels", "transport"), "client": ("pgflight",)}
METADATA = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "LICENSE"}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both wheels, built without the network."""
    return {name: build(source, tmp_path_factory.mktemp(name)) for name, source in SOURCES.items()}


def build(source: Path, directory: Path) -> Path:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(directory), str(source)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=directory)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    [wheel] = directory.glob("*.whl")
    return wheel


def shipped(source: Path, package: str) -> set[str]:
    """Return the files of a package that git knows or would know."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", package]
    listed = subprocess.run(command, cwd=source, capture_output=True, text=True, check=True, timeout=60)
    return {name for name in listed.stdout.splitlines() if (source / name).exists()}


@pytest.mark.parametrize("name", SOURCES)
def test_a_wheel_holds_its_packages_and_nothing_else(wheels: dict[str, Path], name: str) -> None:
    with zipfile.ZipFile(wheels[name]) as archive:
        names = set(archive.namelist())
    metadata = {each for each in names if ".dist-info/" in each}
    assert {each.rsplit("/", 1)[1] for each in metadata} == METADATA
    wanted = set().union(*(shipped(SOURCES[name], package) for package in PACKAGES[name]))
    assert len(wanted) > 10
    assert names - metadata == wanted
    for package in PACKAGES[name]:
        assert {f"{package}/__init__.py", f"{package}/py.typed"} <= names


def test_packages_are_those_of_the_configuration() -> None:
    for name, source in SOURCES.items():
        configured = tomllib.loads((source / "pyproject.toml").read_text())
        assert tuple(configured["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == PACKAGES[name]


@pytest.fixture(scope="module")
def installed(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The commands of a fresh environment with both wheels and their dependencies."""
    directory = tmp_path_factory.mktemp("environment")
    venv.create(directory, with_pip=True)
    install = [str(directory / "bin" / "python"), "-m", "pip", "install", "--quiet", *map(str, wheels.values())]
    ended = subprocess.run(
        install, capture_output=True, text=True, timeout=900, check=False, cwd=directory, env=bare()
    )
    assert ended.returncode == 0, ended.stderr
    yield directory / "bin"


def bare() -> dict[str, str]:
    """Return an environment from which the source tree cannot be found."""
    return {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}


def ask(command: list[str], cwd: Path) -> str:
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=cwd, env=bare())
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_installed_wheels_serve_and_read(installed: Path, postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    where = (
        "import flight_server, flight_sql, kernels, transport, pgflight as p; print(kernels.__file__, p.__file__)"
    )
    for file in ask([str(installed / "python"), "-c", where], tmp_path).split():
        assert Path(file).is_relative_to(installed.parent)
    clean = {"PYTHONPATH": "", "NUMBA_CACHE_DIR": str(tmp_path / "kernels")}
    with ServerProcess(postgres.dsn(), environment=clean, program=installed / "pgflight-server") as server:
        sql = "select i, i * 0.5::float8 as half, 'row ' || i as text from generate_series(1, 3) i"
        command = [str(installed / "pgflight"), "query", sql, "--uri", server.uri, "--format", "csv", "--quiet"]
        said = ask(command, tmp_path).replace('"', "").splitlines()
    assert said == ["i,half,text", "1,0.5,row 1", "2,1,row 2", "3,1.5,row 3"]
    assert (tmp_path / "kernels").is_dir()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_installed_wheels_need_nothing_else(installed: Path, tmp_path: Path) -> None:
    """Every command explains itself, with the dependencies that the wheels name and no extra."""
    assert "No broken requirements" in ask([str(installed / "python"), "-m", "pip", "check"], tmp_path)
    for command in (["pgflight-server", "serve"], ["pgflight-server", "export"], ["pgflight", "query"]):
        assert "--help" in ask([str(installed / command[0]), command[1], "--help"], tmp_path)
