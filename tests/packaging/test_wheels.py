"""The wheels hold what they should and nothing else, and run where no source tree is."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from demo.postgres import EmbeddedPostgres
from tests.helpers.server import ServerProcess

ROOT = Path(__file__).parents[2]
SOURCES = {"server": ROOT, "client": ROOT / "client"}
PACKAGES = {"server": ("flight_server", "flight_sql", "kernels", "transport"), "client": ("pgflight",)}
SUFFIXES = {".py", ".pyi", ".proto", ".typed"}
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
    """Return the files of a package, without what Python has compiled."""
    files = (path.relative_to(source) for path in (source / package).rglob("*") if path.is_file())
    return {str(path) for path in files if "__pycache__" not in path.parts}


@pytest.mark.parametrize("name", SOURCES)
def test_a_wheel_holds_its_packages_and_nothing_else(wheels: dict[str, Path], name: str) -> None:
    with zipfile.ZipFile(wheels[name]) as archive:
        names = set(archive.namelist())
    metadata = {each for each in names if ".dist-info/" in each}
    assert {each.rsplit("/", 1)[1] for each in metadata} == METADATA
    wanted = set().union(*(shipped(SOURCES[name], package) for package in PACKAGES[name]))
    assert len(wanted) > 10
    assert {Path(each).suffix for each in wanted} <= SUFFIXES, "what is that doing here?"
    assert names - metadata == wanted
    for package in PACKAGES[name]:
        assert {f"{package}/__init__.py", f"{package}/py.typed"} <= names


def test_packages_are_those_of_the_configuration() -> None:
    for name, source in SOURCES.items():
        configured = tomllib.loads((source / "pyproject.toml").read_text())
        assert tuple(configured["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == PACKAGES[name]


@pytest.fixture(scope="module")
def installed(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of a fresh environment with both wheels and their dependencies."""
    directory = tmp_path_factory.mktemp("environment")
    venv.create(directory, with_pip=True)
    install(directory, *map(str, wheels.values()))
    return directory / "bin"


@pytest.fixture(scope="module")
def locked(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of what the image for CPUs installs."""
    directory = tmp_path_factory.mktemp("locked")
    venv.create(directory, with_pip=True)
    install(directory, "--require-hashes", "-r", str(ROOT / "requirements.lock"))
    install(directory, "--no-deps", str(wheels["server"]))
    return directory / "bin"


def install(environment: Path, *what: str) -> None:
    command = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", *what]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=900, check=False, cwd=environment, env=bare()
    )
    assert ended.returncode == 0, ended.stderr


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


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_the_image_installs_is_enough_and_healthy(
    locked: Path, postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    """The Dockerfile's own health check, on a port of ours, tells a running server from a stopped one."""
    assert "No broken requirements" in ask([str(locked / "python"), "-m", "pip", "check"], tmp_path)
    found = re.search(
        r"^HEALTHCHECK .*?CMD (\[.*?\])$", (ROOT / "Dockerfile").read_text(), re.MULTILINE | re.DOTALL
    )
    assert found is not None
    _python, *check = json.loads(found[1])
    clean = {"PYTHONPATH": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    flags = ("--http-listen", "0")
    with ServerProcess(postgres.dsn(), *flags, environment=clean, program=locked / "pgflight-server") as server:
        port = next(line["http_port"] for line in server.log if line.get("event") == "listening")
        healthy = [str(locked / "python"), *(word.replace(":9464/", f":{port}/") for word in check)]
        ask(healthy, tmp_path)
    assert subprocess.run(healthy, capture_output=True, timeout=60, check=False).returncode != 0
