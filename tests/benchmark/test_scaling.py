"""The scaling curve in its small form: it runs, skips what cannot be filled, and is drawn from what it wrote."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from pyarrow import flight
from typer.testing import CliRunner

from benchmark import endpoints, scaling, scaling_plot, setting
from benchmark.__main__ import app
from benchmark.contestants import ENDPOINTS, by_name
from benchmark.endpoints import EndpointError, Reader
from benchmark.measure import Meter, Sample
from benchmark.results import Entry
from benchmark.scaling import Curve, Point
from benchmark.target import Target
from demo.postgres import EmbeddedPostgres
from tests.helpers.server import ServerProcess

ROWS = 20_000
BURN = """
import time
while time.process_time() < 0.3: pass
print(flush=True)
input()
"""


def scale(database: EmbeddedPostgres, *options: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["scaling", "--dsn", database.dsn(), "--repeat", "2", *options])
    return done.exit_code, " ".join(done.stdout.split()), done.stderr


def test_from_the_command_line_to_the_picture(
    postgres: EmbeddedPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures, picture = tmp_path / "new" / "scaling.json", tmp_path / "scaling.svg"
    options = ["--dataset", "lineorder", "--rows", str(ROWS), "--streams-list", "2, 1", "--endpoints"]
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "matplotlib", None)
        status, said, error = scale(postgres, *options, "--json", str(figures), "--plot", str(picture))
    assert status == 0, error
    assert f"later, python -m benchmark plot {figures} {picture}" in said
    assert not picture.exists()

    written = json.loads(figures.read_text())
    assert (written["repeat"], written["skipped"]) == (2, {})
    assert {"cpu", "cores", "memory_gib", "postgresql", "shared_buffers", "date"} <= set(written["environment"])
    (curve,) = written["scaling"]
    assert (curve["table"], curve["rows"]) == ("lineorder", ROWS)
    assert curve["wire_bytes"] > 140 * ROWS
    assert [point["streams"] for point in curve["points"]] == [1, 2]
    for point in curve["points"]:
        floor, streams, ends = point["floor"], *point["ways"]
        assert [each["group"] for each in (floor, streams, ends)] == ["floor", "pgflight", "pgflight"]
        assert ends["name"] == ENDPOINTS.name
        assert floor["ratio"] == 1.0
        for each in (floor, streams, ends):
            assert each["streams"] == point["streams"]
            assert [sample["rows"] for sample in each["samples"]] == [ROWS, ROWS]
            assert each["ratio"] == each["median"]["seconds"] / floor["median"]["seconds"]
            assert each["rows_per_s"] == ROWS / each["median"]["seconds"]
            assert all((sample["server_cpu_s"] is None) == (each is floor) for sample in each["samples"])
    assert "lineorder: 20,000 rows" in said

    pytest.importorskip("matplotlib", reason="the plot needs the extra `bench`")
    assert CliRunner().invoke(app, ["plot", str(figures), str(picture)]).exit_code == 0
    drawn = picture.read_text()
    assert "raw COPY streams, drained" in drawn
    scaling_plot.draw([Curve.from_json(curve)], written["environment"], picture)
    assert picture.read_text() == drawn


def test_a_data_set_without_its_generator_is_skipped(
    postgres: EmbeddedPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demo.lineitem.sysconfig.get_path", lambda _: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    figures = tmp_path / "scaling.json"
    options = ["--rows", str(ROWS + 500), "--streams-list", "1", "--json", str(figures)]
    status, said, _ = scale(postgres, *options)
    assert status == 0
    assert "lineitem: skipped, lineitem needs tpchgen-cli" in said
    written = json.loads(figures.read_text())
    assert [curve["table"] for curve in written["scaling"]] == ["lineorder"]
    assert "tpchgen-cli" in written["skipped"]["lineitem"]
    status, _, error = scale(postgres, *options, "--dataset", "lineitem")
    assert (status, "nothing was measured" in error) == (1, True)


def test_a_table_that_keeps_fewer_streams_busy_is_refused(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    options = ["--dataset", "lineorder", "--rows", str(ROWS), "--streams-list", "1,40"]
    status, _, error = scale(postgres, *options, "--json", str(tmp_path / "none.json"))
    assert status == 1
    assert "streams, not by 40: split by pages" in error


@pytest.mark.parametrize("streams_list", ["", "1,x", "0", "1,,2", "-1"])
def test_the_list_of_streams_is_checked(streams_list: str) -> None:
    done = CliRunner().invoke(app, ["scaling", "--streams-list", streams_list])
    assert (done.exit_code, "such as 1,2,4" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("cores", "counts"), [(1, [1]), (2, [1, 2]), (12, [1, 2, 4, 8, 12]), (16, [1, 2, 4, 8, 16])]
)
def test_streams_double_up_to_the_cores(cores: int, counts: list[int]) -> None:
    assert scaling.doubling(cores) == counts


def test_endpoints_are_read_by_processes_and_let_go(postgres: EmbeddedPostgres, server: ServerProcess) -> None:
    target = Target(postgres.dsn(), server.uri, server.pid, "lineorder", ROWS, streams=2)
    setting.fill(target, lambda _: None)
    drained = list(endpoints.read(target))
    assert len(drained) == 2
    assert all(piece.num_rows > 0 for piece in drained)
    assert sum(piece.num_rows for piece in drained) == ROWS
    with flight.connect(server.uri) as client:
        (facts,) = client.do_action("info")
        assert json.loads(facts.body.to_pybytes())["snapshots"]["held"] == 0


def test_a_reading_process_that_fails_says_why(server: ServerProcess) -> None:
    reader = Reader(server.uri)
    assert reader.answer() == 0
    reader.ask(b"SELECT nonsense")
    with pytest.raises(EndpointError, match="nonsense"):
        reader.answer()


def test_cpu_time_of_children_counts_while_they_live() -> None:
    pipe = subprocess.PIPE
    meter = Meter(None)
    with subprocess.Popen([sys.executable, "-c", BURN], stdin=pipe, stdout=pipe, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        living = meter.cpu_s()
        child.communicate("\n")
    assert living > 0.2
    assert meter.cpu_s() >= living


def test_the_server_and_postgresql_are_large_enough() -> None:
    assert "--max-connections" in scaling.server_options(16)
    with (
        setting.postgres(None, None, scaling.postgres_settings(60, 4_000_000)) as dsn,
        psycopg.connect(dsn) as connection,
    ):
        shown = connection.execute("SELECT current_setting('shared_buffers'), current_setting('max_connections')")
        assert shown.fetchone() == ("976MB", "198")


def curve(seconds: dict[int, tuple[float, float]]) -> Curve:
    def entry(name: str, streams: int, wall_s: float) -> Entry:
        one = Sample(wall_s, wall_s, 0.1, None, 2, None, 1, None, ROWS, 1_000_000)
        each = by_name(name)
        return Entry(name, each.title, each.group, streams, [one], None)

    points = [
        Point(count, entry("copy-floor", count, floor), [entry("pgflight", count, ours)])
        for count, (floor, ours) in seconds.items()
    ]
    return Curve("lineorder", ROWS, points)


def test_figures_survive_json_and_are_drawn_the_same(tmp_path: Path) -> None:
    measured = curve({1: (4.0, 4.0), 2: (2.0, 2.5), 16: (0.5, 1.0)})
    assert [point.ratio(point.ways[0]) for point in measured.points] == [1.0, 1.25, 2.0]
    assert Curve.from_json(json.loads(json.dumps(measured.to_json()))) == measured
    pytest.importorskip("matplotlib", reason="the plot needs the extra `bench`")
    facts = {"cpu": "cpu", "cores": 16, "postgresql": "18", "date": "2026-01-01T00:00:00"}
    for name in ("one.svg", "two.svg"):
        scaling_plot.draw([measured, replace(measured, table="lineitem")], facts, tmp_path / name)
    drawn = (tmp_path / "one.svg").read_text()
    assert drawn == (tmp_path / "two.svg").read_text()
    assert all(text in drawn for text in ("1.25", "lineitem", "M rows/s", ">16<"))
