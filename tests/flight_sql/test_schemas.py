"""Results: exactly the published schemas, NOT NULL kept, batches of bounded size."""

from __future__ import annotations

import pyarrow as pa
import pytest

from flight_sql import schemas
from flight_sql.columns import ColumnFacts

PUBLISHED = {
    "CATALOGS": "catalog_name: string not null",
    "DB_SCHEMAS": "catalog_name: string, db_schema_name: string not null",
    "TABLES": "catalog_name: string, db_schema_name: string, table_name: string not null, "
    "table_type: string not null",
    "TABLES_WITH_SCHEMA": "catalog_name: string, db_schema_name: string, table_name: string not null, "
    "table_type: string not null, table_schema: binary not null",
    "TABLE_TYPES": "table_type: string not null",
    "PRIMARY_KEYS": "catalog_name: string, db_schema_name: string, table_name: string not null, "
    "column_name: string not null, key_sequence: int32 not null, key_name: string",
    "FOREIGN_KEYS": "pk_catalog_name: string, pk_db_schema_name: string, pk_table_name: string not null, "
    "pk_column_name: string not null, fk_catalog_name: string, fk_db_schema_name: string, "
    "fk_table_name: string not null, fk_column_name: string not null, key_sequence: int32 not null, "
    "fk_key_name: string, pk_key_name: string, update_rule: uint8 not null, delete_rule: uint8 not null",
    "XDBC_TYPE_INFO": "type_name: string not null, data_type: int32 not null, column_size: int32, "
    "literal_prefix: string, literal_suffix: string, create_params: list<item: string not null>, "
    "nullable: int32 not null, case_sensitive: bool not null, searchable: int32 not null, "
    "unsigned_attribute: bool, fixed_prec_scale: bool not null, auto_increment: bool, local_type_name: string, "
    "minimum_scale: int32, maximum_scale: int32, sql_data_type: int32 not null, datetime_subcode: int32, "
    "num_prec_radix: int32, interval_precision: int32",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_schemas(name: str) -> None:
    shown = ", ".join(
        f"{field.name}: {field.type}{'' if field.nullable else ' not null'}" for field in getattr(schemas, name)
    )
    assert shown == PUBLISHED[name]


def test_tables_of_rows() -> None:
    table = schemas.table(schemas.DB_SCHEMAS, [("c", "s"), (None, "t")])
    assert table.schema.equals(schemas.DB_SCHEMAS)
    assert table.to_pylist()[1] == {"catalog_name": None, "db_schema_name": "t"}
    assert schemas.table(schemas.DB_SCHEMAS, []).num_rows == 0
    with pytest.raises(ValueError, match="NULL in db_schema_name"):
        schemas.table(schemas.DB_SCHEMAS, [("c", None)])
    with pytest.raises(ValueError, match="1 values"):
        schemas.table(schemas.DB_SCHEMAS, [("c",)])


def test_columns_by_position() -> None:
    found = pa.table({"x": pa.array(["a"]), "y": pa.array([2], pa.int64())})
    wanted = pa.schema([pa.field("a", pa.string()), pa.field("b", pa.uint8(), nullable=False)])
    assert schemas.conform(wanted, found).schema.equals(wanted)
    with pytest.raises(pa.ArrowInvalid):
        schemas.conform(wanted, pa.table({"x": ["a"], "y": [256]}))


@pytest.mark.parametrize("rows", [0, 1, 7, 1000])
def test_batches_are_small(rows: int) -> None:
    table = schemas.table(schemas.TABLE_TYPES, [("x" * 100,)] * rows)
    batches = schemas.batches(table, 1000)
    assert pa.Table.from_batches(batches, table.schema).equals(table)
    assert all(batch.nbytes <= 1100 for batch in batches)
    assert len(batches) >= rows // 10


def test_column_metadata() -> None:
    facts = ColumnFacts(schema_name="s", precision=5, is_auto_increment=False, is_searchable=True)
    assert facts.metadata() == {
        "ARROW:FLIGHT:SQL:SCHEMA_NAME": "s",
        "ARROW:FLIGHT:SQL:DB_SCHEMA_NAME": "s",
        "ARROW:FLIGHT:SQL:PRECISION": "5",
        "ARROW:FLIGHT:SQL:IS_AUTO_INCREMENT": "0",
        "ARROW:FLIGHT:SQL:IS_SEARCHABLE": "1",
    }
