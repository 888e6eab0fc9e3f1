"""The lists, against what psycopg reads of information_schema and the catalog."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from adbc_driver_flightsql import dbapi

from flight_sql import schemas
from flight_sql.info import CODES, child_of
from flight_sql.proto import flight_sql_pb2 as pb
from tests.flight_server.sql.rpc import RawClient

TYPES = {"BASE TABLE": "TABLE", "VIEW": "VIEW", "FOREIGN": "FOREIGN TABLE"}
PREFIX = b"ARROW:FLIGHT:SQL:"


def names(found: pa.Table) -> list[str]:
    return found["table_name"].to_pylist()


def test_catalogs(raw: RawClient) -> None:
    assert raw.read(pb.CommandGetCatalogs()).to_pylist() == [{"catalog_name": "demo"}]


def test_schemas(raw: RawClient, shop: psycopg.Connection) -> None:
    shop.execute("create schema if not exists extra")
    try:
        found = raw.read(pb.CommandGetDbSchemas())
        assert found.schema.equals(schemas.DB_SCHEMAS)
        expected = shop.execute(
            "select current_database(), nspname from pg_namespace where has_schema_privilege(oid, 'usage') "
            "and nspname !~ '^pg_(toast|temp_)' order by nspname"
        ).fetchall()
        assert [tuple(row.values()) for row in found.to_pylist()] == expected
        assert {"public", "scratch", "extra", "pg_catalog", "information_schema"} <= {name for _, name in expected}
    finally:
        shop.execute("drop schema extra")


@pytest.mark.parametrize(
    ("command", "found"),
    [
        (pb.CommandGetDbSchemas(catalog="demo", db_schema_filter_pattern="scratch"), 1),
        (pb.CommandGetDbSchemas(db_schema_filter_pattern="scr%"), 1),
        (pb.CommandGetDbSchemas(db_schema_filter_pattern="scratc_"), 1),
        (pb.CommandGetDbSchemas(db_schema_filter_pattern="SCRATCH"), 0),
        (pb.CommandGetDbSchemas(db_schema_filter_pattern=""), 0),
        (pb.CommandGetDbSchemas(catalog=""), 0),
        (pb.CommandGetDbSchemas(catalog="other"), 0),
        (pb.CommandGetDbSchemas(catalog="dem%"), 0),
    ],
    ids=str,
)
def test_filters_of_schemas(raw: RawClient, shop: psycopg.Connection, command: Any, found: int) -> None:
    """A catalog is a name, a schema a pattern; an empty one is not an absent one."""
    assert raw.read(command).num_rows == found


def test_tables_are_those_of_information_schema(raw: RawClient, shop: psycopg.Connection) -> None:
    found = raw.read(pb.CommandGetTables())
    assert found.schema.equals(schemas.TABLES)
    listed = {
        (row["db_schema_name"], row["table_name"]): row["table_type"].replace("SYSTEM TABLE", "TABLE").replace(
            "SYSTEM VIEW", "VIEW"
        )
        for row in found.to_pylist()
    }  # fmt: skip
    expected = {
        (schema, name): TYPES[kind]
        for schema, name, kind in shop.execute(
            "select table_schema, table_name, table_type from information_schema.tables"
        ).fetchall()
    }
    materialised = {key: kind for key, kind in listed.items() if kind == "MATERIALIZED VIEW"}
    assert materialised == {("scratch", "counted"): "MATERIALIZED VIEW"}  # unknown to the standard
    readable = {key for key in expected if shop.execute(
        "select has_any_column_privilege(c.oid, 'select') from pg_class c join pg_namespace n "
        "on n.oid = relnamespace where (nspname, relname) = (%s, %s)", key).fetchone() == (True,)}  # fmt: skip
    assert {key: kind for key, kind in listed.items() if key not in materialised} == {
        key: expected[key] for key in readable
    }
    order = [(row["catalog_name"], row["db_schema_name"], row["table_name"]) for row in found.to_pylist()]
    assert order == sorted(order, key=lambda key: tuple(part.encode() for part in key))


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"table_name_filter_pattern": "a_b"}, ["a_b", "axb"]),
        ({"table_name_filter_pattern": r"a\_b"}, ["a_b"]),
        ({"table_name_filter_pattern": "%Näme_"}, ['Odd "Näme"']),
        ({"table_name_filter_pattern": 'Odd "N_me"'}, ['Odd "Näme"']),
        ({"table_name_filter_pattern": r"back\\slash"}, ["back\\slash"]),
        ({"table_name_filter_pattern": "a_b\\"}, []),
        ({"table_name_filter_pattern": ""}, []),
        ({"table_name_filter_pattern": "A_B"}, []),
        ({"table_name_filter_pattern": "select * from t where a = '\\"}, []),
        ({"table_name_filter_pattern": "none"}, ["none"]),
        ({"table_types": ["VIEW"]}, ["cheap"]),
        ({"table_types": ["VIEW", "MATERIALIZED VIEW"]}, ["cheap", "counted"]),
        ({"table_types": ["view"]}, []),
        ({"table_types": ['odd"type,{}\\']}, []),
        ({"table_types": ["SYSTEM TABLE"]}, []),
        ({"table_types": ["TABLE"], "table_name_filter_pattern": "%"},
         ['Odd "Näme"', "a_b", "axb", "back\\slash", "goods", "maker", "none", "parts", "parts_1"]),
        ({"catalog": ""}, []),
        ({"catalog": "other"}, []),
        ({"catalog": "demo", "table_name_filter_pattern": "maker"}, ["maker"]),
    ],
    ids=str,
)  # fmt: skip
def test_filters_of_tables(
    raw: RawClient, shop: psycopg.Connection, filters: dict[str, Any], found: list[str]
) -> None:
    command = pb.CommandGetTables(db_schema_filter_pattern="scratch", **filters)
    assert names(raw.read(command)) == found
    with_schemas = pb.CommandGetTables(db_schema_filter_pattern="scratch", include_schema=True, **filters)
    assert names(raw.read(with_schemas)) == found


def test_table_types(raw: RawClient) -> None:
    listed = raw.read(pb.CommandGetTableTypes())["table_type"].to_pylist()
    assert listed == sorted(listed)
    assert {"TABLE", "VIEW", "SYSTEM TABLE"} <= set(listed)
    used = raw.read(pb.CommandGetTables())["table_type"].to_pylist()
    assert set(used) <= set(listed)


def table_schema(raw: RawClient, name: str) -> pa.Schema:
    command = pb.CommandGetTables(
        db_schema_filter_pattern="scratch", table_name_filter_pattern=name, include_schema=True
    )
    found = raw.read(command)
    assert found.schema.equals(schemas.TABLES_WITH_SCHEMA)
    return pa.ipc.read_schema(found["table_schema"][0].as_buffer())


def test_columns_are_those_of_information_schema(raw: RawClient, shop: psycopg.Connection) -> None:
    for table in ("goods", "maker", 'Odd "Näme"', "cheap", "parts"):
        schema = table_schema(raw, table)
        expected = shop.execute(
            "select column_name, is_nullable = 'YES', is_identity = 'YES' or column_default like 'nextval%%' "
            "from information_schema.columns where table_schema = 'scratch' and table_name = %s "
            "order by ordinal_position",
            (table,),
        ).fetchall()
        assert [
            (field.name, field.nullable, field.metadata[PREFIX + b"IS_AUTO_INCREMENT"] == b"1") for field in schema
        ] == [(name, nullable, bool(auto)) for name, nullable, auto in expected]


def test_columns_are_typed_as_reads_are(raw: RawClient, shop: psycopg.Connection) -> None:
    """The types that a read of the table has, in the session's profile; Flight SQL's facts beside."""
    schema = table_schema(raw, "goods")
    assert schema.types == raw.query("select * from scratch.goods").schema.types
    price = {key.removeprefix(PREFIX): value for key, value in schema.field("price").metadata.items()}
    assert price | {
        b"CATALOG_NAME": b"demo", b"SCHEMA_NAME": b"scratch", b"DB_SCHEMA_NAME": b"scratch", b"TABLE_NAME": b"goods",
        b"TYPE_NAME": b"scratch.price", b"PRECISION": b"8", b"SCALE": b"2", b"REMARKS": b"in euros",
        b"IS_READ_ONLY": b"1", b"IS_SEARCHABLE": b"1", b"IS_AUTO_INCREMENT": b"0",
    } == price  # fmt: skip
    assert schema.field("maker_name").metadata[PREFIX + b"PRECISION"] == b"40"
    assert schema.field("label").metadata[PREFIX + b"IS_CASE_SENSITIVE"] == b"1"
    raw.headers["x-pgflight-profile"] = "plain"
    assert table_schema(raw, "goods").field("code").type == pa.binary(16)
    assert len(table_schema(raw, "none")) == 0


def test_only_what_may_be_read_is_listed(raw: RawClient, shop: psycopg.Connection, postgres: Any) -> None:
    """A schema without USAGE, a table and a column without SELECT."""
    with postgres.connect(user="postgres") as owner:
        owner.execute(
            "create schema hidden; create table hidden.t (a int); create table scratch.secret (a int); "
            "create table scratch.half (shown int, secret int); grant select (shown) on scratch.half to pgflight"
        )
        try:
            assert "hidden" not in raw.read(pb.CommandGetDbSchemas())["db_schema_name"].to_pylist()
            listed = names(raw.read(pb.CommandGetTables()))
            assert "half" in listed
            assert "secret" not in listed
            assert table_schema(raw, "half").names == ["shown"]
        finally:
            owner.execute("drop schema hidden cascade; drop table scratch.secret, scratch.half")


def test_primary_keys(raw: RawClient, shop: psycopg.Connection) -> None:
    found = raw.read(pb.CommandGetPrimaryKeys(db_schema="scratch", table="maker"))
    assert found.schema.equals(schemas.PRIMARY_KEYS)
    assert [tuple(row.values()) for row in found.to_pylist()] == [
        ("demo", "scratch", "maker", "country", 1, "maker_pkey"),
        ("demo", "scratch", "maker", "name", 2, "maker_pkey"),
    ]
    for command, rows in (
        (pb.CommandGetPrimaryKeys(table="maker"), 2),
        (pb.CommandGetPrimaryKeys(catalog="demo", table='Odd "Näme"'), 1),
        (pb.CommandGetPrimaryKeys(catalog="other", table="maker"), 0),
        (pb.CommandGetPrimaryKeys(db_schema="", table="maker"), 0),
        (pb.CommandGetPrimaryKeys(db_schema="scr%", table="maker"), 0),
        (pb.CommandGetPrimaryKeys(table="mak%"), 0),
        (pb.CommandGetPrimaryKeys(table="cheap"), 0),
        (pb.CommandGetPrimaryKeys(table="parts_1"), 1),
        (pb.CommandGetPrimaryKeys(), 0),
    ):
        assert raw.read(command).num_rows == rows, command


def test_foreign_keys(raw: RawClient, shop: psycopg.Connection) -> None:
    made_by = [
        ("demo", "scratch", "maker", key, "demo", "scratch", "goods", f"maker_{key}", position, "made_by",
         "maker_pkey", pb.CASCADE, pb.SET_NULL)
        for position, key in enumerate(("country", "name"), start=1)
    ]  # fmt: skip
    odd = [("demo", "scratch", "goods", "id", "demo", "scratch", 'Odd "Näme"', "Goods", 1, 'Odd "Näme"_Goods_fkey',
            "goods_pkey", pb.NO_ACTION, pb.NO_ACTION)]  # fmt: skip
    for command, expected in (
        (pb.CommandGetImportedKeys(table="goods"), made_by),
        (pb.CommandGetExportedKeys(db_schema="scratch", table="maker"), made_by),
        (pb.CommandGetExportedKeys(table="goods"), odd),
        (pb.CommandGetImportedKeys(catalog="demo", table='Odd "Näme"'), odd),
        (pb.CommandGetCrossReference(pk_table="maker", fk_table="goods"), made_by),
        (pb.CommandGetCrossReference(pk_table="maker", fk_db_schema="scratch", fk_table='Odd "Näme"'), []),
        (pb.CommandGetExportedKeys(catalog="", table="maker"), []),
        (pb.CommandGetImportedKeys(db_schema="public", table="goods"), []),
        (pb.CommandGetImportedKeys(table="maker"), []),
    ):
        found = raw.read(command)
        assert found.schema.equals(schemas.FOREIGN_KEYS)
        assert [tuple(row.values()) for row in found.to_pylist()] == expected, command


def test_foreign_keys_of_partitions(raw: RawClient, shop: psycopg.Connection) -> None:
    """A key between partitioned tables is one key, whatever rows the catalog has for its partitions."""
    shop.execute(
        "create table scratch.lines (k int references scratch.parts on delete restrict, n int) partition by range (n);"
        "create table scratch.lines_1 partition of scratch.lines for values from (0) to (10)"
    )
    exported = raw.read(pb.CommandGetExportedKeys(table="parts")).to_pylist()
    assert [(row["fk_table_name"], row["delete_rule"]) for row in exported] == [("lines", pb.RESTRICT)]
    for table in ("lines", "lines_1"):
        imported = raw.read(pb.CommandGetImportedKeys(table=table)).to_pylist()
        assert [(row["pk_table_name"], row["fk_table_name"]) for row in imported] == [("parts", table)]


def test_xdbc_types(raw: RawClient, database: psycopg.Connection) -> None:
    found = raw.read(pb.CommandGetXdbcTypeInfo())
    assert found.schema.equals(schemas.XDBC_TYPE_INFO)
    rows = found.to_pylist()
    assert rows == sorted(rows, key=lambda row: (row["data_type"], row["type_name"]))
    for row in rows:
        if not row["auto_increment"]:
            assert database.execute("select to_regtype(%s) is not null", (row["type_name"],)).fetchone() == (True,)
    numeric = raw.read(pb.CommandGetXdbcTypeInfo(data_type=pb.XDBC_NUMERIC)).to_pylist()
    assert [(row["type_name"], row["create_params"]) for row in numeric] == [("numeric", ["precision", "scale"])]
    assert raw.read(pb.CommandGetXdbcTypeInfo(data_type=12345)).num_rows == 0
    dates = raw.read(pb.CommandGetXdbcTypeInfo(data_type=pb.XDBC_DATE)).to_pylist()
    assert [(row["sql_data_type"], row["datetime_subcode"]) for row in dates] == [(9, 1)]


def test_sql_info(raw: RawClient, database: psycopg.Connection) -> None:
    """Every code, each with its kind of value; what PostgreSQL knows is PostgreSQL's."""
    found = raw.read(pb.CommandGetSqlInfo())
    assert found.schema.equals(schemas.SQL_INFO)
    assert found["info_name"].to_pylist() == list(CODES)
    assert found["value"].combine_chunks().type_codes.to_pylist() == [child_of(code) for code in CODES]
    known = dict(zip(*found.to_pydict().values(), strict=True))
    assert known[pb.FLIGHT_SQL_SERVER_NAME] == "PostgreSQL"
    assert database.execute("show server_version").fetchone() == (known[pb.FLIGHT_SQL_SERVER_VERSION],)
    words = database.execute("select upper(word) from pg_get_keywords() order by word").fetchall()
    assert known[pb.SQL_KEYWORDS] == [word for (word,) in words]
    assert known[pb.FLIGHT_SQL_SERVER_READ_ONLY] is True
    assert known[pb.FLIGHT_SQL_SERVER_TRANSACTION] == pb.SQL_SUPPORTED_TRANSACTION_NONE
    functions = [
        name
        for code in (pb.SQL_NUMERIC_FUNCTIONS, pb.SQL_STRING_FUNCTIONS, pb.SQL_DATETIME_FUNCTIONS)
        for name in known[code]
    ]
    exist = database.execute(
        "select proname from pg_proc where pronamespace = 'pg_catalog'::regnamespace"
    ).fetchall()
    grammar = {"CURRENT_DATE", "CURRENT_TIME", "CURRENT_TIMESTAMP", "LOCALTIME", "LOCALTIMESTAMP", "TRIM"}
    assert {name.lower() for name in functions} - {name for (name,) in exist} <= {name.lower() for name in grammar}
    some = raw.read(pb.CommandGetSqlInfo(info=[8, 10_000, 0, 8]))
    assert some.to_pydict() == {"info_name": [8, 0], "value": [0, "PostgreSQL"]}


def test_metadata_needs_no_plan(raw: RawClient) -> None:
    """The schema by GetSchema and GetFlightInfo, the rows by the command itself as ticket."""
    for command, schema in (
        (pb.CommandGetTables(include_schema=True), schemas.TABLES_WITH_SCHEMA),
        (pb.CommandGetTables(), schemas.TABLES),
        (pb.CommandGetSqlInfo(), schemas.SQL_INFO),
    ):
        info = raw.info(command)
        assert raw.schema(command).equals(schema)
        assert info.schema.equals(schema)
        assert len(info.endpoints) == 1
        assert info.endpoints[0].locations == []
        assert raw.get(command).schema.equals(schema)


def test_drivers_objects(adbc: dbapi.Connection, shop: psycopg.Connection) -> None:
    """get_objects at every depth: the driver checks the schemas field by field."""
    for depth in ("catalogs", "db_schemas", "tables", "columns", "all"):
        found = adbc.adbc_get_objects(
            depth=depth, catalog_filter="demo", db_schema_filter="scratch", table_name_filter="goods"
        ).read_all()
        [catalog] = found.to_pylist()
        assert catalog["catalog_name"] == "demo"
        if depth == "catalogs":
            assert catalog["catalog_db_schemas"] is None
            continue
        [schema] = catalog["catalog_db_schemas"]
        assert schema["db_schema_name"] == "scratch"
        if depth == "db_schemas":
            assert schema["db_schema_tables"] is None
            continue
        [table] = schema["db_schema_tables"]
        assert (table["table_name"], table["table_type"]) == ("goods", "TABLE")
        if depth in ("columns", "all"):
            columns = {column["column_name"]: column for column in table["table_columns"]}
            assert list(columns)[:3] == ["id", "label", "price"]
            assert columns["id"]["xdbc_scope_table"] == "goods"
            assert columns["id"]["xdbc_is_autoincrement"] is True
            assert columns["price"]["xdbc_type_name"] == "scratch.price"
            assert columns["doc"]["ordinal_position"] == 8
    everything = adbc.adbc_get_objects(depth="all").read_all().to_pylist()
    listed = {schema["db_schema_name"]: schema for schema in everything[0]["catalog_db_schemas"]}
    assert len(listed["pg_catalog"]["db_schema_tables"]) > 100
    only = adbc.adbc_get_objects(
        depth="tables", table_types_filter=["VIEW"], db_schema_filter="scratch"
    ).read_all()
    [schema] = only.to_pylist()[0]["catalog_db_schemas"]
    assert [table["table_name"] for table in schema["db_schema_tables"]] == ["cheap"]


def test_drivers_table_schema(adbc: dbapi.Connection, shop: psycopg.Connection) -> None:
    for name in ("goods", "a_b", "axb", 'Odd "Näme"', "parts_1"):
        schema = adbc.adbc_get_table_schema(name, db_schema_filter="scratch")
        with adbc.cursor() as cursor:
            quoted = '"' + name.replace('"', '""') + '"'
            cursor.execute(f"select * from scratch.{quoted}")
            assert schema.names == cursor.fetch_arrow_table().schema.names
    with pytest.raises(dbapi.ProgrammingError):
        adbc.adbc_get_table_schema("no_such_table")
    assert "TABLE" in adbc.adbc_get_table_types()
    assert adbc.adbc_get_info()["vendor_name"] == "PostgreSQL"


def test_estimates_and_facts_of_a_plan(raw: RawClient, shop: psycopg.Connection) -> None:
    """What the server's own FlightInfo says is said here too."""
    info = raw.info(pb.CommandStatementQuery(query="select * from scratch.a_b"))
    assert json.loads(info.app_metadata)["why"]
    assert not info.ordered
