"""What stands in the documentation is run against a real server; what cannot be run is parsed."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import sqlglot
import yaml

from demo.postgres import EmbeddedPostgres
from tests.helpers import commands
from tests.helpers.markdown import Block, blocks
from tests.helpers.server import ServerProcess

ROOT = Path(__file__).parents[2]
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "client" / "README.md"})
BLOCKS = [block for page in PAGES for block in blocks(page)]
RECIPES = ROOT / "docs" / "clients"
"""Their Python and SQL is run by tests/flight_server/clients."""
SHELL, PYTHON, SQL = {"sh", "bash", "console"}, {"python"}, {"sql"}
RUN = SHELL | PYTHON | SQL
READ = {"toml": tomllib.loads, "json": json.loads, "yaml": yaml.safe_load}
SHOWN = {"text", "mermaid", "js"}
ADDRESS = re.compile(r"(grpc://)?(127\.0\.0\.1|localhost):8815")
MAKE_TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
BIN = Path(sys.executable).parent


def name(block: Block) -> str:
    return f"{block.page.relative_to(ROOT)}:{block.line}"


def is_recipe(block: Block) -> bool:
    return block.page.parent == RECIPES and block.language not in SHELL


def is_run(block: Block) -> bool:
    return block.language in RUN and block.why_not_run is None and not is_recipe(block)


def is_serving(block: Block) -> bool:
    return block.language in SHELL and "pgflight-server serve" in block.text


def each(chosen: list[Block]) -> pytest.MarkDecorator:
    assert chosen, "no such block: what is tested then?"
    return pytest.mark.parametrize("block", chosen, ids=name)


@pytest.fixture(scope="module")
def shop(postgres: EmbeddedPostgres) -> Iterator[EmbeddedPostgres]:
    """A database of its own, with the table of the quickstart, its reader, and the one that the README reads."""
    [quickstart] = [block.text for block in BLOCKS if block.page.name == "quickstart.md" and block.language in SQL]
    with postgres.connect(user="postgres") as connection:
        connection.execute("create database shop")
        with postgres.connect(user="postgres", dbname="shop") as shop:
            shop.execute(quickstart.encode())
            shop.execute(
                "create table lineorder as select i as lo_orderkey, i % 9 as lo_tax, i % 50 as lo_quantity "
                "from generate_series(1, 10000) i; grant select on lineorder to reader"
            )
        yield postgres
        connection.execute("drop database shop with (force)")
        connection.execute("drop role reader")


@pytest.fixture(scope="module")
def served(shop: EmbeddedPostgres) -> Iterator[ServerProcess]:
    """The server that all pages talk to."""
    with ServerProcess(shop.dsn(user="reader", dbname="shop")) as server:
        yield server


def test_every_block_is_looked_at() -> None:
    for block in BLOCKS:
        assert block.language in RUN | READ.keys() | SHOWN, f"{name(block)}: what is {block.language!r}?"
        assert block.why_not_run is None or block.language in RUN, f"{name(block)} would not be run anyway"
    assert {"README.md", "quickstart.md"} <= {block.page.name for block in BLOCKS if is_run(block)}


@each([block for block in BLOCKS if is_run(block) and not is_serving(block) and block.language not in SQL])
def test_it_runs(block: Block, served: ServerProcess, tmp_path: Path) -> None:
    code = ADDRESS.sub(lambda found: served.uri if found[1] else served.uri.removeprefix("grpc://"), block.text)
    code = code.replace("…", "any")
    start = [sys.executable, "-c"] if block.language in PYTHON else ["bash", "-euo", "pipefail", "-c"]
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PGFLIGHT_", "PG"))}
    ended = subprocess.run(
        [*start, code],
        cwd=tmp_path, env=clean | {"PATH": f"{BIN}:{os.environ['PATH']}"}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    if block.output is not None:
        assert ended.stdout == block.output


@each([block for block in BLOCKS if is_run(block) and block.language in SQL])
def test_sql_has_made_what_the_pages_read(block: Block, shop: EmbeddedPostgres) -> None:
    made = re.findall(r"create table (\w+)", block.text)
    assert made, f"{name(block)}: the fixture runs one page's SQL; extend it"
    with psycopg.connect(shop.dsn(user="reader", dbname="shop")) as reader:
        for table in made:
            assert reader.execute(f"select count(*) > 0 from {table}").fetchone() == (True,)


@each([block for block in BLOCKS if is_run(block) and is_serving(block)])
def test_a_server_starts_as_shown_and_stops(block: Block, shop: EmbeddedPostgres) -> None:
    """The database is ours, the port a free one; all other flags are as they stand."""
    program, command, *flags = shlex.split(block.text)
    assert (program, command) == ("pgflight-server", "serve")
    dsn = flags.pop(flags.index("--dsn") + 1)
    flags.remove("--dsn")
    if "--listen" in flags:
        assert ADDRESS.fullmatch(flags.pop(flags.index("--listen") + 1))
        flags.remove("--listen")
    user = str(psycopg.conninfo.conninfo_to_dict(dsn)["user"])
    with ServerProcess(shop.dsn(user=user, dbname="shop"), *flags, program=BIN / program) as server:
        server.stop()
        assert server.returncode == 0


@each([block for block in BLOCKS if block.why_not_run is not None])
def test_what_is_not_run_is_parsed(block: Block) -> None:
    if block.language in PYTHON:
        compile(block.text, name(block), "exec")
    elif block.language in SQL:
        assert sqlglot.parse(block.text, dialect="postgres")
    else:
        said = subprocess.run(["bash", "-n", "-c", block.text], capture_output=True, text=True, check=False)
        assert said.returncode == 0, said.stderr
        for words in command_lines(block.text):
            look_at(words)


def command_lines(text: str) -> Iterator[list[str]]:
    """Return the simple commands of a script, without variables set before them."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if not set(word) <= set(";&|"):
                words.append(word)
                continue
            while words and re.match(r"\w+=", words[0]):
                words.pop(0)
            if words:
                yield words
            words = []


def look_at(words: list[str]) -> None:
    """Hold a command to what it would find: flags of ours, targets of make, files and services of this tree."""
    program = Path(words[0]).name
    if program in commands.PROGRAMS:
        commands.check([program, *words[1:]])
    elif program == "make":
        assert {word for word in words[1:] if "=" not in word} <= MAKE_TARGETS
    elif program == "docker" and "--target" in words:
        assert f" AS {words[words.index('--target') + 1]}\n" in (ROOT / "Dockerfile").read_text()
    elif program == "docker" and "--profile" in words:
        profile = words[words.index("--profile") + 1]
        assert f"profiles: [{profile}]" in (ROOT / "docker-compose.yml").read_text()
    for word in words:
        if word.startswith("deploy/") or word.endswith(".lock"):
            assert (ROOT / word).exists(), word


@each([block for block in BLOCKS if block.language in READ])
def test_files_parse(block: Block) -> None:
    assert READ[block.language](block.text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        found = page.parent / path if path else page
        assert found.exists(), f"{page}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)", found.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, (
                target
            )


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"]({page.name})" in index
