"""The command line: files, pipes, terminals, errors and interrupts."""

import contextlib
import csv
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from pyarrow import ipc

from pgflight import console

ROWS = 10_000
SQL = "select * from numbers"
PYTHON = "no. Detail: Python exception: pyarrow.lib.ArrowInvalid: no\n"
COMMAND = [sys.executable, "-m", "pgflight"]
READ = {
    ".parquet": pq.read_table,
    ".arrow": lambda path: ipc.open_file(path).read_all(),
    ".arrows": lambda path: ipc.open_stream(path.read_bytes()).read_all(),
    ".feather": pa.feather.read_table,
    ".csv": pa_csv.read_csv,
    ".tsv": lambda path: pa_csv.read_csv(path, parse_options=pa_csv.ParseOptions(delimiter="\t")),
}


def names(folder):
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("suffix", READ)
def test_files(cli, tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    done = cli("query", SQL, "-o", str(path))
    assert done.stdout == ""
    assert done.stderr.startswith("10,000 rows in ")
    assert READ[suffix](path)["n"].to_pylist() == list(range(ROWS))
    assert names(tmp_path) == [path.name]


def test_parquet_has_row_groups_of_a_useful_size(cli, tmp_path):
    cli("query", SQL, "-o", str(tmp_path / "out.parquet"))
    assert pq.ParquetFile(tmp_path / "out.parquet").num_row_groups == 1


def test_every_type_into_every_format(cli, server, tmp_path):
    spans = pa.array([pa.MonthDayNano([1, 2, 3]), None], pa.month_day_nano_interval())
    server.put(
        "mixed",
        pa.table(
            {
                "id": pa.array([b"\x00" * 16, None], pa.uuid()),
                "mood": pa.array(["ok", None]).dictionary_encode(),
                "span": spans,
                "spans": pa.ListArray.from_arrays([0, 1, 2], spans),
                "list": [[1], None],
                "bytes": [b"\xff", None],
            }
        ),
    )
    for suffix, read in READ.items():
        path = tmp_path / f"out{suffix}"
        cli("query", "mixed", "-o", str(path), "--quiet")
        assert read(path).num_rows == 2


def test_an_existing_file_is_replaced_and_a_link_followed(cli, tmp_path):
    (tmp_path / "real.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to("real.csv")
    cli("query", SQL, "-o", str(tmp_path / "link.csv"))
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text().startswith('"n","text"\n0,"row 0"\n')


def test_a_failed_read_leaves_the_old_file_and_nothing_else(cli, tmp_path):
    path = tmp_path / "out.parquet"
    path.write_text("old")
    done = cli("query", "fails_midway", "-o", str(path), check=1)
    assert done.stderr == "error: invalid value in row 5000 (22P02)\n"
    assert path.read_text() == "old"
    assert names(tmp_path) == ["out.parquet"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("out.xlsx", "expected .parquet, .arrow, .arrows, .feather, .csv, .tsv"),
        ("out", "cannot tell a format"),
        ("missing/out.csv", "there is no folder"),
        ("folder.csv", "is not a file"),
    ],
)
def test_unusable_output_names(cli, tmp_path, name, message):
    (tmp_path / "folder.csv").mkdir()
    done = cli("query", SQL, "-o", str(tmp_path / name), check=1)
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert names(tmp_path) == ["folder.csv"]


def test_a_pipe_gets_csv(cli):
    done = cli("query", SQL)
    rows = list(csv.reader(io.StringIO(done.stdout)))
    assert rows[0] == ["n", "text"]
    assert rows[1:] == [[str(n), f"row {n}"] for n in range(ROWS)]
    assert done.stderr == ""


def test_tsv(cli):
    assert cli("query", SQL, "--format", "tsv").stdout.startswith('"n"\t"text"\n0\t"row 0"\n')


def test_a_table_in_a_pipe_when_asked_for(cli):
    done = cli("query", SQL, "--format", "table", "-n", "2")
    assert [line.split() for line in done.stdout.splitlines()][-3:-1] == [["0", "row", "0"], ["1", "row", "1"]]
    assert done.stderr == "first 2 rows of about 10,000\n"


def test_sql_from_stdin(cli):
    assert cli("query", "-", input=SQL).stdout.startswith('"n","text"\n')


def test_parameters_and_options(cli):
    done = cli(
        "query",
        "select * from echo where $1",
        "--param",
        "007",
        "-p",
        "null",
        "-O",
        "streams=4",
        "-O",
        "profile=plain",
    )
    request = json.loads(next(csv.DictReader(io.StringIO(done.stdout)))["request"])
    assert request["params"] == ["007", None]
    assert request["options"] == {"streams": 4, "profile": "plain"}


def test_an_option_without_value(cli):
    assert (
        cli("query", SQL, "-O", "streams", check=1).stderr == "error: --option takes name=value, not 'streams'\n"
    )


def test_tables(cli):
    done = cli("tables", "%.num%")
    assert done.stdout == "schema,table,columns,rows (estimate),bytes (estimate)\npublic,numbers,2,10000,\n"


def test_schema(cli, server):
    field = pa.field("id", pa.int32(), metadata={"pg:type": "integer"})
    server.put("typed", pa.table([pa.array([], pa.int32())], schema=pa.schema([field])))
    assert cli("schema", "select * from typed").stdout == "column,type,postgresql\nid,int32,integer\n"
    assert cli("schema", SQL).stdout == "column,type,postgresql\nn,int64,\ntext,string,\n"


def test_info(cli):
    assert json.loads(cli("info").stdout) == {"server": "pgflight", "decode": "cpu"}


@pytest.mark.parametrize("command", [["query", "x"], ["tables"], ["schema", "x"], ["info"]])
def test_no_server(cli, command):
    done = cli(*command, "--uri", "grpc://127.0.0.1:1", check=1)
    assert done.stderr.startswith("error: failed to connect")
    assert done.stderr.count("\n") == 1


def test_the_server_must_be_given(cli, cli_environment):
    del cli_environment["PGFLIGHT_URI"]
    assert "--uri" in cli("info", check=2).stderr


def test_token_from_the_environment(cli, cli_environment, start_server):
    with start_server("--token", "s3cret") as server:
        cli_environment["PGFLIGHT_URI"] = server.uri
        assert cli("info", check=1).stderr == "error: no valid token\n"
        cli_environment["PGFLIGHT_TOKEN"] = "s3cret"
        assert "pgflight" in cli("info").stdout
        assert "pgflight" in cli("info", "--token", "s3cret").stdout
        assert "s3cret" not in cli("query", "--help").stdout


def test_timeout(cli):
    assert "Deadline Exceeded" in cli("query", "stalls", "--timeout", "0.3", check=1).stderr


def test_help(cli):
    for command in ("query", "tables", "schema", "info"):
        assert command in cli("--help").stdout
        assert "PGFLIGHT_URI" in cli(command, "--help").stdout


def test_a_closed_pipe_ends_quietly(cli_environment, server):
    with subprocess.Popen(
        [*COMMAND, "query", "endless"], env=cli_environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b'"n","text"\n'
        process.stdout.close()
        assert process.wait(timeout=30) == 141
        assert process.stderr.read() == b""
    server.wait_idle()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_one_line(cli_environment):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, "query", SQL],
            env=cli_environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "No space left" in done.stderr
    assert done.stderr.count("\n") == 1


def test_colour_does_not_make_a_pipe_a_terminal(cli, cli_environment):
    cli_environment["FORCE_COLOR"] = "1"
    assert cli("query", SQL).stdout.startswith('"n","text"\n')
    assert cli("schema", SQL).stdout.startswith("column,type,postgresql\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("table", ["never_opened", "stalls", "endless"])
def test_interrupts_leave_nothing(cli_environment, server, tmp_path, wait_until, table, number, code):
    command = [*COMMAND, "query", table, "-o", str(tmp_path / "out.parquet")]
    before = server.counts()["started"]
    with subprocess.Popen(command, env=cli_environment, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: names(tmp_path), bool)
        if table != "never_opened":
            wait_until(server.counts, lambda seen: seen["started"] > before)
        process.send_signal(number)
        assert process.wait(timeout=30) == code
        assert process.stderr.read() == ""
    assert names(tmp_path) == []
    server.wait_idle()


def test_interrupt_while_planning(cli_environment, server, wait_until):
    before = server.counts()["planned"]
    command = [*COMMAND, "query", "never_planned"]
    with subprocess.Popen(command, env=cli_environment, stderr=subprocess.PIPE, text=True) as process:
        wait_until(server.counts, lambda seen: seen["planned"] > before)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
        assert process.stderr.read() == ""


@pytest.fixture
def terminal(cli_environment):
    """Run the command line on a terminal; return what it shows."""

    def run(*arguments, check=0):
        ours, theirs = pty.openpty()
        environment = {**cli_environment, "TERM": "xterm-256color"}
        process = subprocess.Popen(
            [*COMMAND, *arguments], env=environment, stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # EIO: the other side was closed
            while data := os.read(ours, 65536):
                shown += data
        os.close(ours)
        assert process.wait(timeout=30) == check
        return shown.decode()

    return run


def test_a_terminal_gets_the_first_rows(terminal, server):
    before = server.wait_idle()["broken_off"]
    shown = terminal("query", "endless", "--limit-rows", "3")
    assert "row 2" in shown
    assert "row 3" not in shown
    assert "first 3 rows; there are more" in shown
    assert server.wait_idle()["broken_off"] == before + 1


def test_a_terminal_tells_the_estimate(terminal):
    assert "first 3 rows of about 10,000" in terminal("query", SQL, "--limit-rows", "3")


def test_a_terminal_gets_all_of_a_short_result(terminal, server):
    server.put("short", pa.table({"a": ["x\x1b[31m\n", None], "b": [1, 2]}))
    shown = terminal("query", "short")
    assert "2 rows" in shown
    assert "NULL" in shown
    assert "x\\x1b[31m\\n" in shown
    assert "\x1b[31m" not in shown


def test_wide_rows_are_shown_as_records(terminal, server):
    server.put("wide", pa.table({f"column_{n}": [f"value {n}", "x" * 300] for n in range(30)}))
    shown = re.sub(r"\x1b\[[\d;]*m", "", terminal("query", "wide"))
    assert re.search(r"^column_7 +value 7 *\r$", shown, re.MULTILINE)
    assert "row 2" in shown


def test_progress_on_a_terminal(terminal, tmp_path):
    shown = terminal("query", SQL, "-o", str(tmp_path / "out.csv"))
    assert "10,000 rows" in shown
    assert "/s" in shown
    assert "10,000 rows in" in shown
    assert "rows" not in terminal("query", SQL, "-o", str(tmp_path / "out.csv"), "--quiet")


def test_an_error_on_a_terminal_is_red(terminal):
    assert "\x1b[31m" in terminal("query", "nowhere", check=1)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no. Detail: Failed", "no"),
        ("a: b. Detail: x y. Detail: Failed. gRPC client debug context: UNKNOWN:a", "a: b. Detail: x y"),
        (PYTHON, "no"),
        (f"{PYTHON}. gRPC client debug context: INVALID_ARGUMENT:{PYTHON}. Client context: OK", "no"),
        ("Flight returned timeout error, with message: Deadline Exceeded", "Deadline Exceeded"),
        ("plain, with message: kept", "plain, with message: kept"),
        ("", "ArrowInvalid"),
    ],
)
def test_error_text_is_the_server_s(text, shown):
    assert console.error_text(pa.ArrowInvalid(text)) == shown
