"""The exact schemas of the metadata commands' results: clients compare them field by field."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

import pyarrow as pa


def _schema(*fields: tuple[str, pa.DataType] | tuple[str, pa.DataType, bool]) -> pa.Schema:
    """Make a schema of (name, type) or (name, type, nullable); columns are NOT NULL unless they say otherwise."""
    return pa.schema([pa.field(name, kind, nullable=bool(rest and rest[0])) for name, kind, *rest in fields])


NULLABLE: Final = True
TEXT: Final = pa.string()

CATALOGS: Final = _schema(("catalog_name", TEXT))
DB_SCHEMAS: Final = _schema(("catalog_name", TEXT, NULLABLE), ("db_schema_name", TEXT))
TABLES: Final = _schema(
    ("catalog_name", TEXT, NULLABLE),
    ("db_schema_name", TEXT, NULLABLE),
    ("table_name", TEXT),
    ("table_type", TEXT),
)
TABLES_WITH_SCHEMA: Final = TABLES.append(pa.field("table_schema", pa.binary(), nullable=False))
TABLE_TYPES: Final = _schema(("table_type", TEXT))
PRIMARY_KEYS: Final = _schema(
    ("catalog_name", TEXT, NULLABLE),
    ("db_schema_name", TEXT, NULLABLE),
    ("table_name", TEXT),
    ("column_name", TEXT),
    ("key_sequence", pa.int32()),
    ("key_name", TEXT, NULLABLE),
)
FOREIGN_KEYS: Final = _schema(
    ("pk_catalog_name", TEXT, NULLABLE),
    ("pk_db_schema_name", TEXT, NULLABLE),
    ("pk_table_name", TEXT),
    ("pk_column_name", TEXT),
    ("fk_catalog_name", TEXT, NULLABLE),
    ("fk_db_schema_name", TEXT, NULLABLE),
    ("fk_table_name", TEXT),
    ("fk_column_name", TEXT),
    ("key_sequence", pa.int32()),
    ("fk_key_name", TEXT, NULLABLE),
    ("pk_key_name", TEXT, NULLABLE),
    ("update_rule", pa.uint8()),
    ("delete_rule", pa.uint8()),
)
"""Of exported keys, imported keys and cross references alike."""
XDBC_TYPE_INFO: Final = _schema(
    ("type_name", TEXT),
    ("data_type", pa.int32()),
    ("column_size", pa.int32(), NULLABLE),
    ("literal_prefix", TEXT, NULLABLE),
    ("literal_suffix", TEXT, NULLABLE),
    ("create_params", pa.list_(pa.field("item", TEXT, nullable=False)), NULLABLE),
    ("nullable", pa.int32()),
    ("case_sensitive", pa.bool_()),
    ("searchable", pa.int32()),
    ("unsigned_attribute", pa.bool_(), NULLABLE),
    ("fixed_prec_scale", pa.bool_()),
    ("auto_increment", pa.bool_(), NULLABLE),
    ("local_type_name", TEXT, NULLABLE),
    ("minimum_scale", pa.int32(), NULLABLE),
    ("maximum_scale", pa.int32(), NULLABLE),
    ("sql_data_type", pa.int32()),
    ("datetime_subcode", pa.int32(), NULLABLE),
    ("num_prec_radix", pa.int32(), NULLABLE),
    ("interval_precision", pa.int32(), NULLABLE),
)
SQL_INFO_VALUE: Final = pa.dense_union(
    [
        pa.field("string_value", TEXT, nullable=False),
        pa.field("bool_value", pa.bool_(), nullable=False),
        pa.field("bigint_value", pa.int64(), nullable=False),
        pa.field("int32_bitmask", pa.int32(), nullable=False),
        pa.field("string_list", pa.list_(TEXT), nullable=False),
        pa.field("int32_to_int32_list_map", pa.map_(pa.int32(), pa.list_(pa.int32())), nullable=False),
    ]
)
SQL_INFO: Final = _schema(("info_name", pa.uint32()), ("value", SQL_INFO_VALUE))


def table(schema: pa.Schema, rows: Sequence[Sequence[Any]]) -> pa.Table:
    """Make a result of Python rows.

    Raises
    ------
    ValueError
        A row has a None where the schema has NOT NULL, or another number of values.
    """
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    if len(columns) != len(schema):
        raise ValueError(f"{len(columns)} values in a row of {len(schema)} columns")
    arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    return conform(schema, pa.Table.from_arrays(arrays, names=schema.names))


def conform(schema: pa.Schema, found: pa.Table) -> pa.Table:
    """Give columns that were read by position the names, types and nullability of a result.

    Raises
    ------
    ValueError
        A column has a NULL where the schema has NOT NULL.
    """
    for field, column in zip(schema, found.columns, strict=True):
        if column.null_count and not field.nullable:
            raise ValueError(f"NULL in {field.name}")
    arrays = [column.cast(field.type) for field, column in zip(schema, found.columns, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def batches(found: pa.Table, limit_bytes: int) -> list[pa.RecordBatch]:
    """Cut a result into batches of about `limit_bytes` at most; a row larger than that travels alone."""
    rows = max(1, found.num_rows * limit_bytes // max(1, found.nbytes))
    cuts = [*range(0, found.num_rows, rows), found.num_rows]
    return [
        batch
        for begin, end in pairwise(cuts)
        for batch in found.slice(begin, end - begin).combine_chunks().to_batches()
    ]
