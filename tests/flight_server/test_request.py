"""The request grammar: what is understood, and what is refused by name."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flight_server.options import options_from_headers, parse_options
from flight_server.reading import statement
from flight_server.request import MAX_REQUEST_BYTES, parse_command, parse_path, split_name
from kernels.errors import RequestError
from kernels.plan import TypePolicy


def command(**parts: object) -> bytes:
    return json.dumps(parts).encode()


@pytest.mark.parametrize(
    ("request_bytes", "sql"),
    [
        (b"select 1", "select 1"),
        (b"  select 1; ", "  select 1; "),
        (command(sql="select $1", params=[1]), "select $1"),
        (command(table="t"), 'SELECT * FROM "t"'),
        (command(table="S.T"), 'SELECT * FROM "s"."t"'),
        (command(table='"S"."a.b""c"'), 'SELECT * FROM "S"."a.b""c"'),
        (command(table=["S", "x.y"]), 'SELECT * FROM "S"."x.y"'),
        (command(table="t", columns=["a", 'b"c']), 'SELECT "a", "b""c" FROM "t"'),
        (command(table="t", where="a > 1 -- end"), 'SELECT * FROM "t" WHERE (a > 1 -- end\n)'),
        (command(table="t", limit=0), 'SELECT * FROM "t" LIMIT 0'),
    ],
)
def test_statements(request_bytes: bytes, sql: str) -> None:
    assert statement.select(parse_command(request_bytes, {})) == sql


def test_path() -> None:
    assert statement.select(parse_path([b"Weird Name"], {})) == 'SELECT * FROM "Weird Name"'
    assert statement.select(parse_path([b"s", b"t"], {})) == 'SELECT * FROM "s"."t"'


@pytest.mark.parametrize(
    ("request_bytes", "named"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"\xff\xfe", "UTF-8"),
        (b"{", "JSON"),
        (b"[1]" * 0 + b'{"sql": 1}', "'sql'"),
        (b"{}", "'sql' and 'table'"),
        (command(sql="select 1", table="t"), "'sql' and 'table'"),
        (command(sql="select 1", limit=1), "'limit'"),
        (command(sql="select 1", surprise=1), "'surprise'"),
        (command(table="t", params=[1]), "'params'"),
        (command(table="a.b.c"), "table"),
        (command(table=""), "table"),
        (command(table=["a", ""]), "table"),
        (command(table='"a'), "quotes"),
        (command(table='"a"b'), "malformed"),
        (command(table="t", columns=[]), "'columns'"),
        (command(table="t", columns="a"), "'columns'"),
        (command(table="t", where=" "), "'where'"),
        (command(table="t", limit=-1), "'limit'"),
        (command(table="t", limit=True), "'limit'"),
        (command(table="t", options=[]), "'options'"),
        (command(sql="select 1", params="x"), "'params'"),
        (command(sql="select 1", params=["\0"]), "zero byte"),
        (b"[" * 100_000 + b"]", "sql"),
        (b'{"a":' * 100_000, "JSON"),
        (b"x" * (MAX_REQUEST_BYTES + 1), "bytes"),
    ],
)
def test_refusals_name_what_is_wrong(request_bytes: bytes, named: str) -> None:
    if request_bytes.startswith(b"["):
        assert parse_command(request_bytes, {}).sql is not None  # not an object: SQL, for PostgreSQL to refuse
        return
    with pytest.raises(RequestError, match=named):
        parse_command(request_bytes, {})


def test_parameters_are_text() -> None:
    request = parse_command(command(sql="s", params=[None, "a", 1, 1.5, True, {"k": [1]}]), {})
    assert request.params == (None, "a", "1", "1.5", "true", '{"k": [1]}')


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("output", "cuda"),
        ("compression", "gzip"),
        ("decode", "tpu"),
        ("profile", "cudf"),
        ("transport", "pigeon"),
        ("transport", ["gds"]),
        ("streams", 0),
        ("streams", "many"),
        ("endpoints", 0),
        ("ordered", "maybe"),
        ("ordered", 1),
        ("numeric", "float32"),
        ("infinity", None),
        ("arrays", "nested"),
        ("temporal", "string"),
        ("bpchar", "strip"),
        ("money", "decimal"),
        ("batch_bytes", 1),
        ("batch_bytes", 1e6 + 0.5),
        ("batch_bytes", "x"),
        ("timeout_s", -1),
        ("timeout_s", True),
        ("timeout_s", "nan"),
        ("framing", "udp"),
        ("reader", "tcp"),
        ("no_such_option", 1),
    ],
)
def test_options_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(RequestError, match=name):
        parse_options({name: value})


def test_options_are_honoured() -> None:
    given_options = {
        "output": "host", "profile": "plain", "numeric": "string", "infinity": "null", "decode": "cpu",
        "transport": "pinned", "framing": "copy", "reader": "libpq", "streams": "auto", "endpoints": 8,
        "arrays": "nd", "temporal": "text", "bpchar": "trim", "money": "int64", "ordered": "true", "batch_bytes": "65536", "timeout_s": "1.5",
    }  # fmt: skip
    options = parse_options(given_options)
    assert (options.batch_bytes, options.timeout_s, options.streams, options.endpoints) == (65536, 1.5, 0, 8)
    assert options.ordered is True
    assert options.types == TypePolicy("plain", "string", "null", "arrow", "nd", "text", "trim", "int64")
    assert parse_options(options.changed()) == options


def test_headers_are_defaults_and_the_request_wins() -> None:
    headers = {"x-pgflight-profile": ["plain"], "x-pgflight-batch-bytes": [b"65536"], "user-agent": ["x"]}
    defaults = options_from_headers(headers)
    request = parse_command(command(table="t", options={"profile": "arrow"}), defaults)
    assert (request.options.profile, request.options.batch_bytes) == ("arrow", 65536)
    with pytest.raises(RequestError, match="speed"):
        parse_path([b"t"], options_from_headers({"x-pgflight-speed": ["warp"]}))


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(raw: bytes) -> None:
    """No input ends in anything but a request or a RequestError."""
    try:
        request = parse_command(raw, {})
    except RequestError:
        return
    assert request.sql is not None or request.table is not None


@given(st.lists(st.text(min_size=1).filter(lambda text: "\0" not in text), min_size=1, max_size=2))
def test_quoted_names_survive(names: list[str]) -> None:
    assert split_name(statement.relation(names)) == names


def test_casts_wrap_by_position() -> None:
    wrapped = statement.with_casts("select 1, 2;", [None, "text"])
    assert wrapped == "SELECT q.c0, q.c1::pg_catalog.text FROM (\nselect 1, 2\n) AS q(c0, c1)"
    assert statement.with_casts("show all", [None]) == "show all"


def test_nested_columns_are_arrow_wherever_they_are_decoded() -> None:
    for where in ({}, {"decode": "gpu"}, {"output": "cuda-ipc"}):
        assert parse_options(where).types.nested == "arrow"
        assert parse_options(where | {"nested": "text"}).types.nested == "text"
