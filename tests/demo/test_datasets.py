"""The other data sets: they fill, they repeat, and they hold what their names promise."""

from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from demo import lineitem
from demo.datasets import DATASETS
from demo.edges import EDGES, UNREPRESENTABLE
from demo.postgres import EmbeddedPostgres
from demo.synthetic import edge_column_name, null_columns

ROWS = 1000


def query(server: EmbeddedPostgres, statement: sql.SQL | sql.Composed) -> list[tuple[object, ...]]:
    with server.connect() as connection:
        rows: list[tuple[object, ...]] = connection.execute(statement).fetchall()
        return rows


@pytest.mark.parametrize("name", DATASETS)
def test_fills_exactly_and_once(server: EmbeddedPostgres, name: str) -> None:
    DATASETS[name].fill(server.dsn(), ROWS - 1)
    assert DATASETS[name].fill(server.dsn(), ROWS)
    assert not DATASETS[name].fill(server.dsn(), ROWS)
    assert query(server, sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(name))) == [(ROWS,)]


@pytest.mark.parametrize("name", DATASETS)
def test_content_is_reproducible(server: EmbeddedPostgres, name: str) -> None:
    digests = []
    for _ in range(2):
        with server.connect() as connection:
            connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(name)))
        DATASETS[name].fill(server.dsn(), ROWS)
        digest = sql.SQL("SELECT md5(string_agg(t::text, '' ORDER BY t::text)) FROM {} AS t")
        digests += query(server, digest.format(sql.Identifier(name)))
    assert digests[0] == digests[1]


def test_null_columns_have_their_share(server: EmbeddedPostgres) -> None:
    DATASETS["nulls"].fill(server.dsn(), ROWS)
    names = [column.name for column in null_columns()]
    counts = sql.SQL(", ").join(sql.SQL("count(*) - count({})").format(sql.Identifier(name)) for name in names)
    (row,) = query(server, sql.SQL("SELECT {} FROM nulls").format(counts))
    assert row == tuple(ROWS * int(name.rpartition("_")[2]) // 100 for name in names)


@pytest.mark.parametrize("kind", EDGES)
def test_types_hold_every_edge_value(server: EmbeddedPostgres, kind: str) -> None:
    DATASETS["types"].fill(server.dsn(), ROWS)
    literals = EDGES[kind]
    with server.connect() as connection:
        column = sql.Identifier(edge_column_name(kind))
        text = sql.SQL("SELECT {}::text FROM types LIMIT {}").format(column, len(literals))
        stored = [value for (value,) in connection.execute(text)]
        cast = sql.SQL("SELECT {}::{}::text")
        expected = [
            connection.execute(cast.format(sql.Literal(literal), sql.SQL(kind))).fetchone() for literal in literals
        ]
    assert [(value,) for value in stored] == expected


@pytest.mark.parametrize("kind", UNREPRESENTABLE)
def test_unrepresentable_values_are_valid_in_postgresql(server: EmbeddedPostgres, kind: str) -> None:
    for literal in UNREPRESENTABLE[kind]:
        cast = sql.SQL("SELECT {}::{} IS NOT NULL").format(sql.Literal(literal), sql.SQL(kind))
        assert query(server, cast) == [(True,)]


def test_wide_text_is_wide_and_not_ascii(server: EmbeddedPostgres) -> None:
    DATASETS["wide"].fill(server.dsn(), ROWS)
    facts = sql.SQL("SELECT max(octet_length(t::text)) > 1500, bool_and(greek ~ '[^[:ascii:]]') FROM wide AS t")
    assert query(server, facts) == [(True, True)]


def test_embeddings_have_unit_length(server: EmbeddedPostgres) -> None:
    DATASETS["embeddings"].fill(server.dsn(), ROWS)
    facts = sql.SQL(
        "SELECT min(vector_dims(embedding)), max(abs(vector_norm(embedding) - 1)) < 1e-5 FROM embeddings"
    )
    assert query(server, facts) == [(384, True)]


def test_lineitem_is_tpch(server: EmbeddedPostgres) -> None:
    DATASETS["lineitem"].fill(server.dsn(), ROWS)
    facts = sql.SQL(
        "SELECT count(*) FILTER (WHERE l_receiptdate <= l_shipdate), "
        "min(octet_length(l_shipinstruct)), count(DISTINCT l_shipmode) FROM lineitem"
    )
    assert query(server, facts) == [(0, 25, 7)]


def test_missing_generator_is_named(
    server: EmbeddedPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(lineitem.GeneratorError, match="pip install tpchgen-cli"):
        lineitem.fill(server.dsn(), ROWS + 1)


def test_failing_generator_leaves_no_table(
    server: EmbeddedPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = tmp_path / "tpchgen-cli"
    generator.write_text("#!/bin/sh\necho header\necho 1,2,3\n")
    generator.chmod(0o755)
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with server.connect() as connection:
        connection.execute("DROP TABLE IF EXISTS lineitem")
    with pytest.raises((lineitem.GeneratorError, psycopg.DataError)):
        lineitem.fill(server.dsn(), ROWS)
    assert query(server, sql.SQL("SELECT to_regclass('lineitem')")) == [(None,)]
