"""Descriptors: which strings are tables, what goes over the wire."""

import datetime as dt
import decimal
import json
import uuid

import pytest

from pgflight import request


def command(descriptor):
    return json.loads(descriptor.command)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("orders", ("orders",)),
        ("Orders", ("orders",)),
        ("ÄB", ("Äb",)),  # PostgreSQL folds ASCII only
        (' public . "x" ', None),
        ("public.orders", ("public", "orders")),
        ('"Sales 2024"."a.b"', ("Sales 2024", "a.b")),
        ('s."say ""hi"""', ("s", 'say "hi"')),
        ("  orders\n", ("orders",)),
        ("a$1", ("a$1",)),
        ("größe", ("größe",)),
        ("a.b.c", None),
        ("select 1", None),
        ("table x", None),
        ("1a", None),
        ("", None),
        ('""', None),
        ('"a', None),
        ("a;", None),
    ],
)
def test_table_path(text, path):
    assert request.table_path(text) == path


def test_a_table_without_options_is_a_path():
    assert request.query_descriptor('public."Mixed"', None, {}).path == [b"public", b"Mixed"]


def test_a_table_with_options_is_json_with_quotes_where_needed():
    descriptor = request.query_descriptor('Public."Mixed"', None, {"streams": 4})
    assert command(descriptor) == {"table": 'public."Mixed"', "options": {"streams": 4}}


def test_bare_sql_is_text():
    assert request.query_descriptor("select 1", [], {"streams": None}).command == b"select 1"


def test_text_that_looks_like_json_is_wrapped():
    assert command(request.query_descriptor('{"table": "x"}', None, {})) == {"sql": '{"table": "x"}'}


def test_parameters_and_options():
    descriptor = request.query_descriptor("select $1", [1, "é", None, True], {"profile": "plain", "new": [1]})
    assert command(descriptor) == {
        "sql": "select $1",
        "params": [1, "é", None, True],
        "options": {"profile": "plain", "new": [1]},
    }


def test_parameters_json_has_no_type_for():
    identifier = uuid.uuid4()
    values = [
        dt.date(2024, 2, 29),
        dt.datetime(2024, 2, 29, 1, 2, 3, 4, tzinfo=dt.UTC),
        dt.time(1, 2),
        decimal.Decimal("1.10"),
        identifier,
        b"\x00\xff",
        float("nan"),
        float("-inf"),
        [decimal.Decimal(1)],
    ]
    assert command(request.query_descriptor("select $1", values, {}))["params"] == [
        "2024-02-29",
        "2024-02-29T01:02:03.000004+00:00",
        "01:02:00",
        "1.10",
        str(identifier),
        "\\x00ff",
        "nan",
        "-inf",
        ["1"],
    ]


def test_a_value_without_json_form_is_named():
    with pytest.raises(ValueError, match="type object has no JSON form"):
        request.query_descriptor("select $1", [object()], {})


def test_parameters_do_not_go_with_a_table():
    with pytest.raises(ValueError, match="'orders' names a table"):
        request.query_descriptor("orders", [1], {})


def test_table_with_columns_condition_and_limit():
    descriptor = request.table_descriptor("s.t", ("a", "B"), "a > 1", 0, {"streams": 2})
    expected = {
        "table": "s.t",
        "columns": ["a", "B"],
        "where": "a > 1",
        "limit": 0,
        "options": {"streams": 2},
    }
    assert command(descriptor) == expected


def test_table_refuses_sql():
    with pytest.raises(ValueError, match="not a table's name: 'select 1'"):
        request.table_descriptor("select 1", None, None, None, {})


def test_columns_is_not_one_string():
    with pytest.raises(TypeError, match="not the string 'abc'"):
        request.table_descriptor("t", "abc", None, None, {})
