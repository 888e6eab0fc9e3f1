"""Tables in files: the same rows, of one snapshot, whole or not there, and gone on with after a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import flight

import pgflight
from demo.postgres import EmbeddedPostgres
from flight_server.export.manifest import digest_of
from tests.helpers.server import ServerProcess
from tests.helpers.waiting import eventually

ROWS = 150_000
TABLES = ("exported.t", "exported.kinds", "exported.empty", "exported.view")
SUFFIXES = ("parquet", "arrow", "raw")
COMMAND = (sys.executable, "-m", "flight_server", "export")


@pytest.fixture(scope="module")
def tables(postgres: EmbeddedPostgres) -> Iterator[None]:
    with postgres.connect() as connection:
        connection.execute(
            f"""
            create schema exported;
            create table exported.t as select g as id, 'n' || g as name, g / 8.0::float8 as f,
                case when g % 3 = 0 then g end as a, repeat('x', 90) as pad from generate_series(1, {ROWS}) g;
            create table exported.kinds as select g as id, g % 2 = 0 as b, g::numeric(12, 2) as n, md5(g::text)::uuid as u,
                to_jsonb(g) as j, date '2000-01-01' + g as d, now() - g * interval '1 s' as at, '\\x00ff'::bytea as y,
                nullif(g % 5, 0)::int2 as s from generate_series(1, 5000) g;
            create table exported.empty (a int, t text);
            create view exported.view as select id % 10 as k, count(*) as c from exported.t group by 1;
            """
        )
        connection.execute("analyze exported.t")
        yield
        connection.execute("drop schema exported cascade")


def command(postgres: EmbeddedPostgres, to: Path, *words: str) -> list[str]:
    return [*COMMAND, *TABLES, "--dsn", postgres.dsn(), "--to", str(to), "--file-mib", "2", "--json", *words]


def export(postgres: EmbeddedPostgres, to: Path, *words: str) -> dict[str, Any]:
    done = subprocess.run(command(postgres, to, *words), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def exported(
    postgres: EmbeddedPostgres, tables: None, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., None]:
    """Puts a complete export of a format into a directory; each is made once."""
    made: dict[str, Path] = {}

    def copy(to: Path, form: str = "parquet") -> None:
        if form not in made:
            made[form] = tmp_path_factory.mktemp("exported") / form
            export(postgres, made[form], "--format", form)
        shutil.copytree(made[form], to, dirs_exist_ok=True)

    return copy


def contents(to: Path, table: str, form: str) -> pa.Table:
    paths = sorted((to / table).glob(f"part-*.{form}"))
    read = {
        "parquet": lambda path: pq.read_table(path, partitioning=None),
        "arrow": lambda path: pa.ipc.open_file(pa.memory_map(str(path))).read_all(),
        "raw": lambda path: pgflight.open_raw(path).to_arrow(),
    }[form]
    return pa.concat_tables([read(path) for path in paths])


def require_whole(to: Path) -> dict[str, Any]:
    """Check everything that a manifest says."""
    manifest = json.loads((to / "manifest.json").read_text())
    assert manifest["complete"]
    recorded = set()
    for name, table in manifest["tables"].items():
        assert table["finished"]
        assert table["rows"] == sum(file["rows"] for file in table["files"]), name
        for file in table["files"]:
            assert digest_of(to / file["path"]) == (file["size_bytes"], file["digest"])
            recorded.add(to / file["path"])
    assert set(to.glob("*/*")) == recorded, "nothing else is left there"
    return manifest


@pytest.fixture(scope="module")
def expected(server: ServerProcess, tables: None) -> dict[str, pa.Table]:
    with flight.connect(server.uri) as client:
        return {
            name: client.do_get(flight.Ticket(json.dumps({"table": name}).encode())).read_all() for name in TABLES
        }


@pytest.mark.parametrize("form", SUFFIXES)
def test_files_hold_the_tables(
    postgres: EmbeddedPostgres, expected: dict[str, pa.Table], tmp_path: Path, form: str
) -> None:
    told = export(postgres, tmp_path / "to", "--format", form, "--streams", "3")
    manifest = require_whole(tmp_path / "to")
    assert (told["consistent"], manifest["consistent"]) == (True, True)
    assert told["tables"]["exported.t"]["files"] > 3
    for name, table in expected.items():
        found = contents(tmp_path / "to", name, form)
        assert found.column_names == table.column_names
        assert found.num_rows == table.num_rows == told["tables"][name]["rows"]
        order = table.column_names[0]
        for column, field in zip(found.sort_by(order).columns, table.schema, strict=True):
            theirs = table.sort_by(order)[field.name]
            assert column.cast(theirs.type).equals(theirs), field.name
        if form != "parquet":
            assert found.schema.equals(table.schema)


def test_a_complete_export_is_left_alone(
    postgres: EmbeddedPostgres, exported: Callable[..., None], tmp_path: Path
) -> None:
    exported(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("part-*")}
    export(postgres, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("part-*")} == before


def test_another_directorys_contents_are_refused(
    postgres: EmbeddedPostgres, exported: Callable[..., None], tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    done = subprocess.run(command(postgres, tmp_path), capture_output=True, text=True, check=False)
    assert (done.returncode, "holds no export" in done.stderr) == (1, True)
    other = tmp_path / "other"
    exported(other)
    words = command(postgres, other, "--format", "raw")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, "holds another export" in done.stderr) == (1, True)
    require_whole(other)


def test_all_tables_are_of_one_snapshot(postgres: EmbeddedPostgres, tables: None, tmp_path: Path) -> None:
    """Somebody writes to two tables all the while: their sums agree in what was exported."""
    writer = """
        do $$ begin for i in 1 .. 100000 loop
            update exported.left_side set n = n + 1; update exported.right_side set n = n + 1; commit;
        end loop; end $$
    """
    names = ("exported.left_side", "exported.right_side")
    with postgres.connect() as database:
        for name in names:
            database.execute(f"create table {name} as select 0 as n from generate_series(1, 3000)")
        busy = psycopg.connect(postgres.dsn(), autocommit=True)

        def write() -> None:
            with pytest.raises(psycopg.errors.QueryCanceled):
                busy.execute(writer)

        thread = threading.Thread(target=write)
        thread.start()
        try:
            done = subprocess.run(
                [*COMMAND, *names, "--dsn", postgres.dsn(), "--to", str(tmp_path / "to"), "--format", "arrow"],
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            busy.cancel_safe()
            thread.join()
            busy.close()
        assert done.returncode == 0, done.stderr
        database.execute("drop table exported.left_side, exported.right_side")
    left, right = (contents(tmp_path / "to", name, "arrow")["n"].unique().to_pylist() for name in names)
    assert left == right
    assert len(left) == 1


def kill_in_the_middle(postgres: EmbeddedPostgres, to: Path, files: int) -> bool:
    """Kill an export once it has so many files; return whether it was under way."""
    process = subprocess.Popen(
        command(postgres, to, "--streams", "1"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    def far_enough() -> bool:
        return process.poll() is not None or len(list(to.glob("*/part-*.parquet"))) >= files

    eventually(far_enough, deadline_s=60.0)
    running = process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return running


@pytest.mark.parametrize("times", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_and_gone_on_with(
    postgres: EmbeddedPostgres, expected: dict[str, pa.Table], tmp_path: Path, times: int
) -> None:
    for number in range(times):
        to = tmp_path / str(number)
        running = kill_in_the_middle(postgres, to, 1 + number % 6)
        written = {path: path.stat().st_mtime_ns for path in to.glob("*/part-*.parquet")}
        seen = json.loads((to / "manifest.json").read_text())["tables"]
        export(postgres, to)
        tables = require_whole(to)["tables"]
        kept = [path for path, at in written.items() if path.exists() and path.stat().st_mtime_ns == at]
        if seen["exported.t"]["snapshot"] == tables["exported.t"]["snapshot"]:  # autovacuum may have been there
            assert len(kept) >= len(written) - 1, "only a file that was not recorded yet is written again"
        assert running or written
        found = contents(to, "exported.t", "parquet").sort_by("id")
        assert found.equals(expected["exported.t"].sort_by("id").cast(found.schema))


def test_after_a_change_it_starts_over_unless_told_otherwise(
    postgres: EmbeddedPostgres, exported: Callable[..., None], tmp_path: Path
) -> None:
    with postgres.connect() as database:
        for name, words in (("anew", ()), ("kept", ("--keep-finished",))):
            to = tmp_path / name
            exported(to)
            manifest = json.loads((to / "manifest.json").read_text())
            manifest["complete"] = False
            dropped = manifest["tables"]["exported.t"]["files"].pop()
            (to / "manifest.json").write_text(json.dumps(manifest))
            (to / dropped["path"]).unlink()
            before = {path: path.stat().st_mtime_ns for path in to.glob("*/part-*")}
            database.execute("insert into exported.empty values (1, 'new')")
            told = export(postgres, to, *words)
            unchanged = {path.parent.name for path, at in before.items() if path.stat().st_mtime_ns == at}
            assert told["consistent"] is (name == "anew")
            assert told["tables"]["exported.empty"]["rows"] == (1 if name == "anew" else 0)
            assert unchanged == (set() if name == "anew" else {*TABLES} - {"exported.t"})
            assert told["tables"]["exported.t"]["rows"] == ROWS
            database.execute("delete from exported.empty")


def test_a_damaged_file_is_written_again(
    postgres: EmbeddedPostgres, exported: Callable[..., None], tmp_path: Path
) -> None:
    exported(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"complete": False}))
    victim = tmp_path / manifest["tables"]["exported.t"]["files"][1]["path"]
    sound = victim.read_bytes()
    victim.write_bytes(sound[:-1] + b"?")
    export(postgres, tmp_path)
    require_whole(tmp_path)
    assert pq.read_table(victim, partitioning=None).num_rows > 0


def test_failures_are_told_and_leave_no_torn_file(
    postgres: EmbeddedPostgres, tables: None, tmp_path: Path
) -> None:
    with postgres.connect() as database:
        database.execute(
            "create view exported.bad as select 1 / (70000 - g) as q from generate_series(1, 90000) g"
        )
        words = [*COMMAND, "exported.bad", "--dsn", postgres.dsn(), "--to", str(tmp_path / "to")]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        database.execute("drop view exported.bad")
    assert (done.returncode, "division by zero" in done.stderr) == (1, True)
    assert list((tmp_path / "to").glob("*/*")) == []
    words[4] = "exported.no_such_table"
    words[-1] = str(tmp_path / "other")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, "does not exist" in done.stderr) == (1, True)


@pytest.mark.parametrize("damage", ["cut", "magic", "index"])
def test_a_damaged_raw_file_is_refused(exported: Callable[..., None], tmp_path: Path, damage: str) -> None:
    exported(tmp_path, "raw")
    path = tmp_path / "exported.kinds" / "part-00000.raw"
    whole = path.read_bytes()
    broken = {"cut": whole[:-5], "magic": b"PARQUET!" + whole[8:], "index": whole[:-16] + b"\xff" * 8 + whole[-8:]}
    path.write_bytes(broken[damage])
    with pytest.raises(pgflight.RawFileError, match=r"raw file|damaged"):
        pgflight.open_raw(path)
