"""The suite of transports in its small form: it runs as users run it, compares values, and tells what it left out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmark import replay, suite
from benchmark.replay import ReplayError
from benchmark.server_log import NoReadError, last_read
from demo.postgres import EmbeddedPostgres
from demo.server import ROOT

ROWS = 20_000
OTHERS = ("lineitem", "wide", "nulls")
HERE = ("pinned", "single", "buffered", "chunked", "gds")


def bench(*words: str, status: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "flight_server", "bench", *words],
        capture_output=True, text=True, cwd=ROOT, check=False, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == status, done.stderr + done.stdout
    return done


@pytest.fixture(scope="module")
def figures(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    directory = tmp_path_factory.mktemp("suite")
    words = ["--transport", "all", "--rows", str(ROWS), "--repeat", "1", "--against", "psycopg", "--types"]
    words += ["--dataset", "lineorder", "--dsn", postgres.dsn()]
    done = bench(*words, "--json", str(directory / "figures.json"), "--plot", str(directory / "figures.svg"))
    written = json.loads((directory / "figures.json").read_text())
    return written | {"stdout": done.stdout, "plot": directory / "figures.svg", "file": directory / "figures.json"}


def test_all_transports_are_measured_and_their_values_compared(figures: dict[str, Any]) -> None:
    (result,) = figures["transports"]
    entries = {entry["name"]: entry for entry in result["entries"]}
    assert (result["dataset"], set(entries)) == ("lineorder", {"floor", "psycopg", *HERE})
    assert entries["floor"]["ratio_to_floor"] == 1.0
    assert all(entry["differs"] == [] for name, entry in entries.items() if name != "floor")
    assert "file_dsn" in result["absent"]["file"]
    for name in HERE:
        entry = entries[name]
        assert entry["read"]["transport"] == name
        assert entry["read"]["wire_bytes"] == entry["wire_bytes"] == entry["read"]["moved"]["received_bytes"]
        assert {"receive", "scan", "decode", "hand out"} <= entry["read"]["stages"].keys()
        assert name in figures["stdout"]
    assert "file: left out" in figures["stdout"]


@pytest.mark.parametrize("dataset", ["vectors", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_every_data_set_is_compared(postgres: EmbeddedPostgres, tmp_path: Path, dataset: str) -> None:
    written = tmp_path / "figures.json"
    words = [
        "--rows",
        "5000",
        "--repeat",
        "1",
        "--dataset",
        dataset,
        "--dsn",
        postgres.dsn(),
        "--json",
        str(written),
    ]
    bench(*words)
    (result,) = json.loads(written.read_text())["transports"]
    assert {entry["name"]: entry["differs"] for entry in result["entries"]} == {"floor": None, "pinned": []}


def test_pictures_come_from_the_figures_again(figures: dict[str, Any], tmp_path: Path) -> None:
    drawn = figures["plot"].read_text()
    assert all(
        text in drawn for text in ("lineorder, 0.02 M rows", "seconds by transport", "GB/s of the wire by type")
    )
    again = tmp_path / "again.svg"
    words = [sys.executable, "-m", "benchmark", "plot", str(figures["file"]), str(again)]
    subprocess.run(words, check=True, cwd=ROOT)
    assert again.read_text() == drawn


def test_types_are_measured(figures: dict[str, Any]) -> None:
    speeds = {one["type"]: one["gb_per_s"] for one in figures["types"]}
    assert {"int8", "text", "numeric(12,2)", "uuid"} <= speeds.keys()
    assert all(speed > 0 for speed in speeds.values())


def test_replay_needs_no_postgresql(tmp_path: Path) -> None:
    written = tmp_path / "replay.json"
    words = ["--replay", "generated", "--rows", "50000", "--transport", "all", "--repeat", "1"]
    done = bench(*words, "--json", str(written), PGHOST="/nowhere")
    passes = {one["transport"]: one for one in json.loads(written.read_text())["replay"]}
    assert tuple(passes) == HERE
    assert {(one["rows"], one["wire_bytes"]) for one in passes.values()} == {(50_000, 53 * 50_000 + 24)}
    assert passes["gds"]["moved"]["written_bytes"] == passes["gds"]["wire_bytes"]
    assert "Replay of generated" in done.stdout
    assert "not a stream" in bench("--replay", str(tmp_path / "no.wire"), status=1).stderr


def test_what_is_generated_is_what_was_meant() -> None:
    source = replay.generated(1000)
    (one,) = replay.replay(source, ["pinned"], 1)
    assert one.rows == 1000
    with pytest.raises(ReplayError, match="file"):
        next(replay.replay(source, ["file"], 1))


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [("--transport", "pigeon", "pinned"), ("--dataset", "zeros", "lineorder"), ("--output", "paper", "host")],
)
def test_wrong_words_are_told(option: str, value: str, told: str) -> None:
    done = CliRunner().invoke(suite.app, [option, value])
    assert (done.exit_code, f"choose from {told}" in done.output) == (1, True)


def test_without_the_source_tree_it_says_so(tmp_path: Path) -> None:
    """An installed server has no package `benchmark`."""
    for package in ("flight_server", "flight_sql", "kernels", "transport"):
        (tmp_path / package).symlink_to(ROOT / package)
    script = (
        "import os, sys\n"
        "sys.path[:] = [os.getcwd()] + [p for p in sys.path if not os.path.exists(os.path.join(p, 'benchmark'))]\n"
        "sys.meta_path[:] = [finder for finder in sys.meta_path if 'ditable' not in repr(finder)]\n"
        "sys.argv = ['pgflight-server', 'bench']\n"
        "from flight_server.cli import main\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        capture_output=True, text=True, cwd=tmp_path, check=False, env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    assert done.returncode == 1, done.stdout
    assert "not part of the installed package" in done.stderr
    assert "'.[bench]'" in done.stderr


def test_a_log_without_reads_is_told(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text('{"event": "listening"}\n')
    with pytest.raises(NoReadError):
        last_read(log)


def test_tables_of_a_document_come_from_the_figures(figures: dict[str, Any], tmp_path: Path) -> None:
    document = tmp_path / "doc.md"
    document.write_text(
        "# A\n<!-- transports -->\nold\n<!-- end -->\ntext\n<!-- stages -->\n<!-- end -->\n<!-- types --><!-- end -->\n"
    )
    words = [sys.executable, "-m", "benchmark", "tables", str(figures["file"])]
    subprocess.run([*words, str(document)], check=True, cwd=ROOT)
    written = document.read_text()
    assert "| floor |" in written
    assert "| gds |" in written
    assert "old" not in written
    assert "text" in written
    subprocess.run([*words, str(document)], check=True, cwd=ROOT)
    assert document.read_text() == written, "again, and nothing changes"
    document.write_text("<!-- moods -->\n<!-- end -->\n")
    done = subprocess.run([*words, str(document)], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, "asks for 'moods'" in done.stderr) == (1, True)


def test_the_documents_tables_can_be_filled(figures: dict[str, Any], tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text((ROOT / "docs" / "performance.md").read_text())
    words = [sys.executable, "-m", "benchmark", "tables", str(figures["file"]), str(document)]
    subprocess.run(words, check=True, cwd=ROOT)
    assert "| chunked |" in document.read_text()
