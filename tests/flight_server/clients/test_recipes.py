"""The recipes of docs/clients: what stands on a page is run, and prints what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from demo.postgres import EmbeddedPostgres
from tests.helpers.server import ServerProcess

PAGES = Path(__file__).parents[3] / "docs" / "clients"
PYTHON = ("adbc", "datafusion", "duckdb", "ibis", "pandas", "polars", "sqlalchemy")
ELSEWHERE = ("node", "jdbc", "README")
ADDRESS = "localhost:8815"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (PAGES / f"{page}.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def shop(postgres_tls: EmbeddedPostgres) -> Iterator[ServerProcess]:
    """The server and the table of docs/clients/README.md."""
    with postgres_tls.connect(user="postgres") as connection:
        connection.execute("create role reader login password 'secret'")
        for statement in blocks("README", "sql"):
            connection.execute(statement.encode())
        connection.execute("grant select on sales to reader")
    with ServerProcess(postgres_tls.dsn(), "--login", "postgres") as server:
        yield server
    with postgres_tls.connect(user="postgres") as connection:
        connection.execute("drop table sales; drop role reader")


def test_no_page_is_forgotten() -> None:
    assert {page.stem for page in PAGES.glob("*.md")} == {*PYTHON, *ELSEWHERE}
    index = (PAGES / "README.md").read_text()
    for page in (*PYTHON, "node", "jdbc"):
        assert f"({page}.md)" in index
        assert (len(blocks(page, "text")) == 0) == (page == "jdbc")


@pytest.mark.parametrize("page", PYTHON)
def test_python(shop: ServerProcess, page: str) -> None:
    code = "\n".join(blocks(page, "python"))
    assert ADDRESS in code
    command = [sys.executable, "-c", code.replace(ADDRESS, urlsplit(shop.uri).netloc)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "".join(blocks(page, "text"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_node(shop: ServerProcess, tmp_path: Path) -> None:
    install = re.search(r"`(npm install .*?)`", (PAGES / "node.md").read_text())
    assert install is not None
    subprocess.run(["npm", "init", "-y"], cwd=tmp_path, capture_output=True, check=True, timeout=60)
    subprocess.run(install[1].split(), cwd=tmp_path, capture_output=True, check=True, timeout=200)
    [code] = blocks("node", "js")
    port = urlsplit(shop.uri).port
    code = code.replace('"localhost"', '"127.0.0.1"').replace("port: 8815", f"port: {port}")
    (tmp_path / "recipe.mjs").write_text(code)
    ended = subprocess.run(
        ["node", "recipe.mjs"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "".join(blocks("node", "text"))
