"""The benchmark in its small form: it runs, it compares values, and it notices reads that are not whole."""

import json
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from benchmark import contest, latency, memory, plot, setting
from benchmark.__main__ import app, wanted
from benchmark.checksum import WHOLE_ROWS, Checksums, differences
from benchmark.contest import Contest
from benchmark.contestants import CONTESTANTS, REFERENCE, Contestant, by_name
from benchmark.floor import FloorError
from benchmark.measure import IncompleteError, Sample, measure
from benchmark.results import DatasetResult, Entry, Ratios
from benchmark.target import Piece, Target
from benchmark.worker import WorkerError
from demo.postgres import EmbeddedPostgres
from demo.server import ROOT
from tests.helpers.server import ServerProcess

ROWS = 20_000
COMPETING = ("copy-floor", "pgflight-parallel", "adbc", REFERENCE)
INSTALLED_WITH_US = [each.name for each in CONTESTANTS if each.module is None and each.program is None]
TESTED_WITH = ("adbc-flightsql", "adbc-flightsql-parallel")
"""Whose driver the tests of Flight SQL need as well."""
READERS = [name for name in (*INSTALLED_WITH_US, *TESTED_WITH) if by_name(name).group != "floor"]
FLOORS = [name for name in INSTALLED_WITH_US if by_name(name).group == "floor"]


@pytest.fixture(scope="module")
def lineitem(postgres: EmbeddedPostgres, server: ServerProcess) -> Target:
    target = Target(postgres.dsn(), server.uri, server.pid, "lineitem", ROWS, streams=2)
    setting.fill(target, lambda _: None)
    return target


def read(name: str, target: Target) -> Iterator[Piece]:
    pieces: Iterator[Piece] = pkgutil.resolve_name(by_name(name).function)(target)
    return pieces


def checksums(target: Target, *pieces: pa.RecordBatch | pa.Table) -> dict[str, str]:
    sums = Checksums(target)
    for piece in pieces:
        sums.add(piece)
    return sums.result()


@pytest.fixture(scope="module")
def reference(lineitem: Target) -> pa.Table:
    return pa.Table.from_batches(read(REFERENCE, lineitem))


def test_a_contest_from_the_command_line(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    only = [word for name in COMPETING for word in ("--only", name)]
    figures = tmp_path / "new" / "figures.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmark", "--dataset", "lineorder", "--rows", str(ROWS), "--repeat", "1",
         "--streams", "2", "--dsn", postgres.dsn(), "--json", str(figures), *only],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    written = json.loads(figures.read_text())
    (result,) = written["datasets"]
    entries = {entry["name"]: entry for entry in result["entries"]}
    assert {*entries, *result["absent"]} == set(COMPETING)
    assert (result["failed"], written["environment"]["cores"] >= 1) == ({}, True)
    assert entries["copy-floor"]["ratios"]["copy"] == 1.0
    assert entries["copy-floor"]["median"]["wire_bytes"] == result["wire_bytes"] > 140 * ROWS
    assert (entries["pgflight-parallel"]["differs"], entries["copy-floor"]["differs"]) == ([], None)
    assert entries["pgflight-parallel"]["streams"] == 2
    for name, entry in entries.items():
        (sample,) = entry["samples"]
        assert sample["rows"] == ROWS
        assert 0 < sample["first_seconds"] <= sample["seconds"]
        assert sample["client_peak_bytes"] >= sample["client_base_bytes"] > 0
        assert (sample["server_cpu_s"] is not None) == (entry["group"] == "pgflight")
        assert entry["title"] in done.stdout
        assert name in result["absent"] or entry["rows_per_s"] > 0
    assert all(
        f"{name}: absent, {module} is not installed" in done.stdout for name, module in result["absent"].items()
    )


@pytest.mark.parametrize("name", [name for name in READERS if name != REFERENCE])
def test_everybody_reads_the_same_values(name: str, lineitem: Target, reference: pa.Table) -> None:
    assert differences(checksums(lineitem, *read(name, lineitem)), checksums(lineitem, reference)) == []


def test_a_peer_that_fails_is_named_and_a_floor_ends_the_run(
    lineitem: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Contestant("broken", "Broken", "peer", "nowhere:read")
    monkeypatch.setattr(contest, "CONTESTANTS", [by_name("copy-floor"), broken])
    match = Contest(lineitem, [], lambda _: None)
    match.verify()
    match.round()
    result = match.result()
    assert [entry.name for entry in result.entries] == ["copy-floor"]
    assert "unknown contestant 'broken'" in result.failed["broken"]
    assert not result.compared
    with pytest.raises(WorkerError, match="sent 20000 rows"):
        Contest(replace(lineitem, rows=ROWS + 1), [], lambda _: None).verify()


@pytest.mark.parametrize("name", FLOORS)
def test_floors_know_when_rows_are_missing(name: str, lineitem: Target) -> None:
    drained = list(read(name, lineitem))
    assert sum(piece.num_rows for piece in drained) == ROWS
    assert sum(piece.wire_bytes for piece in drained) > 200 * ROWS
    with pytest.raises(FloorError, match=f"sent {ROWS} rows of lineitem, not {ROWS + 1}"):
        list(read(name, replace(lineitem, rows=ROWS + 1)))


def test_a_read_that_ends_early_has_no_time(lineitem: Target, reference: pa.Table) -> None:
    with pytest.raises(IncompleteError, match="19999 rows"):
        measure(lambda _: iter([reference.slice(1)]), lineitem)


def test_checksums_know_neither_order_nor_form(lineitem: Target, reference: pa.Table) -> None:
    wanted = checksums(lineitem, reference)
    tax = reference.schema.get_field_index("l_tax")
    as_text = reference.set_column(tax, "tax", reference["l_tax"].cast(pa.string()))
    wide = as_text.set_column(0, "key", as_text[0].cast(pa.decimal128(38, 0)))
    assert checksums(lineitem, *wide.sort_by([("l_comment", "ascending")]).to_batches(700)) == wanted


def test_checksums_see_every_change(lineitem: Target, reference: pa.Table) -> None:
    wanted = checksums(lineitem, reference)

    def with_column(name: str, values: pa.ChunkedArray) -> dict[str, str]:
        index = reference.schema.get_field_index(name)
        return checksums(lineitem, reference.set_column(index, name, values))

    def rotated(name: str) -> pa.ChunkedArray:
        return pa.chunked_array([*reference[name].slice(1).chunks, *reference[name].slice(0, 1).chunks])

    unpadded = {"l_returnflag (padding)", "l_linestatus (padding)"}
    assert {*differences(checksums(lineitem, reference.slice(1)), wanted), *unpadded} == set(wanted)
    assert differences(with_column("l_comment", rotated("l_comment")), wanted) == [WHOLE_ROWS]
    trimmed = pa.compute.utf8_rtrim(reference["l_shipmode"], " ")
    assert differences(with_column("l_shipmode", trimmed), wanted) == ["l_shipmode (padding)"]
    nulls = pa.compute.if_else(pa.compute.equal(reference["l_tax"], 0), None, reference["l_tax"])
    assert differences(with_column("l_tax", nulls), wanted) == ["l_tax", WHOLE_ROWS]


def test_nested_tables_are_read_by_floors_and_us() -> None:
    """Peers spell nested values each in its own way."""
    everybody = [each.name for each in CONTESTANTS]
    assert wanted("lineitem", []) == everybody
    assert wanted("arrays", []) == [name for name in everybody if by_name(name).group != "peer"]
    assert wanted("composites", ["adbc"]) == ["adbc"]


def test_what_is_not_installed_is_named() -> None:
    assert Contestant("x", "x", "peer", "x:x", module="no_such_module").missing == "no_such_module"
    assert Contestant("x", "x", "peer", "x:x", program="no-such-program").missing == "no-such-program"
    assert all(by_name(name).missing is None for name in INSTALLED_WITH_US)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset", "nonsense"], "choose from lineorder, lineitem"),
        (["--only", "nonsense"], "choose from copy-floor"),
        (["--dsn", "host=127.0.0.1 port=1"], "Connection refused"),
    ],
)
def test_mistakes_are_one_line(options: list[str], message: str) -> None:
    done = CliRunner().invoke(app, options)
    assert (done.exit_code, message in done.stderr) == (1, True)


def test_kernels(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    figures = tmp_path / "kernels.json"
    options = ["--dataset", "lineitem", "--rows", str(ROWS), "--repeat", "1", "--dsn", postgres.dsn()]
    done = CliRunner().invoke(app, ["kernels", *options, "--json", str(figures)])
    assert done.exit_code == 0, done.output
    kernels = json.loads(figures.read_text())["kernels"]
    assert [(each["framing"], each["rows"], each["columns"]) for each in kernels] == [
        ("copy", ROWS, 16),
        ("extended", ROWS, 16),
    ]
    assert all(each["both_gb_per_s"] < min(each["scan_gb_per_s"], each["decode_gb_per_s"]) for each in kernels)


def test_memory(postgres: EmbeddedPostgres, server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "RESULT_TIMES_POOL", 2)
    monkeypatch.setattr(memory, "FIRST_CANCELS", 3)
    fast, slow = memory.growth(postgres.dsn(), pool_mib=16)
    for figures in (fast, slow):
        assert 2 * (16 << 20) < figures.result_bytes < 3 * (16 << 20)
        assert 0 <= figures.growth_bytes < 512 << 20
    leaks = memory.leaks(postgres.dsn(), server.uri, server.pid, 3)
    assert (leaks.before.busy, leaks.after.busy) == (0, 0)


def test_latency(postgres: EmbeddedPostgres, server: ServerProcess) -> None:
    asked = latency.queries(postgres.dsn(), server.uri, 3)
    assert {"pgflight, DoGet", "psycopg, rows"} <= {each.title for each in asked}
    assert all(0 < each.p50_ms <= each.p99_ms for each in asked)
    (start,) = latency.startup(postgres.dsn(), cold=False)
    assert 0 < start.listening_s < start.first_batch_s


def sample(seconds: float) -> Sample:
    return Sample(seconds, seconds / 2, 0.1, None, 2, None, 1, None, ROWS, 1_000_000)


def entry(name: str, *seconds: float) -> Entry:
    each = by_name(name)
    return Entry(name, each.title, each.group, 2 if each.parallel else 1, [sample(one) for one in seconds], [])


def test_medians_ratios_and_json() -> None:
    entries = [
        entry("copy-floor", 1.0, 2.0, 9.0),
        entry("copy-floor-parallel", 1.0),
        entry("pgflight-parallel", 3.0),
    ]
    result = DatasetResult("lineorder", ROWS, entries, {"adbc": "x"}, {})
    assert result.seconds("copy-floor") == 2.0
    assert result.ratios(entries[2]) == Ratios(copy=3.0, data_row=None, copy_single=1.5)
    assert asdict(DatasetResult.from_json(json.loads(json.dumps(result.to_json())))) == asdict(result)


def test_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the plot needs the extra `bench`")
    facts = {"cpu": "cpu", "cores": 2, "postgresql": "18", "date": "2026-01-01T00:00:00"}
    result = DatasetResult("lineorder", ROWS, [entry("copy-floor", 1.0), entry("pgflight", 1.1)], {}, {})
    for name in ("one.svg", "two.svg"):
        plot.draw([result, result], facts, tmp_path / name)
    assert (tmp_path / "one.svg").read_text() == (tmp_path / "two.svg").read_text()
    assert "1.10" in (tmp_path / "one.svg").read_text()
    with pytest.raises(plot.PlotError, match="copy-floor"):
        plot.draw([replace(result, entries=result.entries[1:])], facts, tmp_path / "none.svg")
