"""The lists of catalogs, schemas, tables and keys: queries of PostgreSQL's catalog through the pipeline itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import Any

import pyarrow as pa

from flight_server.reading.pipeline import Pipeline
from flight_server.request import ReadRequest
from flight_server.sql import queries
from flight_server.sql.memory import OPTIONS, Ask, CatalogMemory, Check
from flight_server.sql.parameters import array_literal
from flight_server.sql.types import XDBC_TYPES, facts
from flight_sql import schemas
from flight_sql.columns import ColumnFacts
from flight_sql.proto import flight_sql_pb2 as pb
from kernels.column import Column
from kernels.plan import TypePolicy, plan
from transport.catalog import Parts, TypeInfo, column_of

Made = tuple[dict[int, TypeInfo], Parts]
"""What is known of types' parts, and what the parts of types are."""
TABLE_KEY = itemgetter("catalog", "schema", "table_name", "table_type")


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """What does not change while the server runs."""

    database: str
    version: str
    keywords: tuple[str, ...]


class Metadata:
    """Answers the metadata commands for one login.

    Parameters
    ----------
    pipeline : Pipeline
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._memory = CatalogMemory(pipeline)
        self._facts: DatabaseFacts | None = None

    def facts(self, check: Check) -> DatabaseFacts:
        """Return the database's name, version and keywords; asked for once."""
        if self._facts is None:
            [row] = self._query(queries.FACTS, (), check).to_pylist()
            self._facts = DatabaseFacts(row["database"], row["version"], tuple(row["keywords"].split(" ")))
        return self._facts

    def current_schema(self, schema: str, check: Check) -> str:
        """Return the schema in which names are looked up first; empty where the path leads nowhere."""
        request = ReadRequest(sql=queries.CURRENT_SCHEMA, options=OPTIONS, search_path=schema)
        schema, batches = self._pipeline.read(request, check)
        [found] = pa.Table.from_batches(list(batches), schema).to_pylist()
        return found["schema"] or ""

    def has_schema(self, schema: str, check: Check) -> bool:
        """Tell whether there is a schema that the login may use."""
        return bool(self._query(queries.SCHEMA_EXISTS, (schema,), check).num_rows)

    def catalogs(self, check: Check) -> pa.Table:
        """Return the one database."""
        return schemas.table(schemas.CATALOGS, [(self.facts(check).database,)])

    def db_schemas(self, command: pb.CommandGetDbSchemas, check: Check) -> pa.Table:
        """Return the schemas."""
        given = (_given(command, "catalog"), _pattern(command, "db_schema_filter_pattern"))
        return schemas.conform(schemas.DB_SCHEMAS, self._query(queries.DB_SCHEMAS, given, check))

    def tables(self, command: pb.CommandGetTables, policy: TypePolicy, check: Check) -> pa.Table:
        """Return the tables; the Arrow schemas are those of reads with the same policy."""
        given = (
            _given(command, "catalog"),
            _pattern(command, "db_schema_filter_pattern"),
            _pattern(command, "table_name_filter_pattern"),
            array_literal(command.table_types) if command.table_types else None,
        )
        if not command.include_schema:
            return schemas.conform(schemas.TABLES, self._query(queries.TABLES, given, check))

        def make(ask: Ask) -> pa.Table:
            columns = ask(queries.COLUMNS, given).to_pylist()
            return schemas.table(
                schemas.TABLES_WITH_SCHEMA, list(_with_schemas(columns, _made_of(columns, ask), policy))
            )

        return self._memory.made(("tables with schemas", *given, policy), make, check)

    def table_types(self) -> pa.Table:
        """Return the types of tables."""
        return schemas.table(schemas.TABLE_TYPES, [(name,) for name in queries.TABLE_TYPES])

    def primary_keys(self, command: pb.CommandGetPrimaryKeys, check: Check) -> pa.Table:
        """Return the columns of a primary key."""
        return schemas.conform(schemas.PRIMARY_KEYS, self._query(queries.PRIMARY_KEYS, _named(command), check))

    def exported_keys(self, command: pb.CommandGetExportedKeys, check: Check) -> pa.Table:
        """Return the foreign keys that refer to a table."""
        return self._foreign_keys(_named(command), check, of_key=True, of_table=False)

    def imported_keys(self, command: pb.CommandGetImportedKeys, check: Check) -> pa.Table:
        """Return the foreign keys of a table."""
        return self._foreign_keys(_named(command), check, of_key=False, of_table=True)

    def cross_reference(self, command: pb.CommandGetCrossReference, check: Check) -> pa.Table:
        """Return the foreign keys of one table that refer to another."""
        given = (*_named(command, "pk_"), *_named(command, "fk_"))
        return self._foreign_keys(given, check, of_key=True, of_table=True)

    def xdbc_type_info(self, command: pb.CommandGetXdbcTypeInfo) -> pa.Table:
        """Return the data types."""
        wanted = command.data_type if command.HasField("data_type") else None
        rows = [kind.row() for kind in XDBC_TYPES if wanted in (None, kind.number)]
        return schemas.table(schemas.XDBC_TYPE_INFO, rows)

    def _foreign_keys(
        self, given: Sequence[str | None], check: Check, *, of_key: bool, of_table: bool
    ) -> pa.Table:
        text = queries.foreign_keys(of_key=of_key, of_table=of_table)
        return schemas.conform(schemas.FOREIGN_KEYS, self._query(text, given, check))

    def _query(self, text: str, given: Sequence[str | None], check: Check) -> pa.Table:
        return self._memory.query(text, given, check)


def _given(command: Any, name: str) -> str | None:
    """Return a filter, None where the client gave none."""
    return getattr(command, name) if command.HasField(name) else None


def _pattern(command: Any, name: str) -> str | None:
    r"""Return a LIKE pattern; a lone backslash at its end means itself: clients ask for odd names too."""
    pattern = _given(command, name)
    if pattern is not None and (len(pattern) - len(pattern.rstrip("\\"))) % 2:
        return pattern + "\\"
    return pattern


def _named(command: Any, prefix: str = "") -> tuple[str | None, str | None, str]:
    return (
        _given(command, f"{prefix}catalog"),
        _given(command, f"{prefix}db_schema"),
        getattr(command, f"{prefix}table"),
    )


def _made_of(columns: list[dict[str, Any]], ask: Ask) -> Made:
    """Return what the columns' types are made of."""
    oids = sorted({str(member["type_oid"]) for member in columns if member["name"] is not None})
    infos: dict[int, TypeInfo] = {}
    parts: Parts = {}
    for row in ask(queries.PARTS, (array_literal(oids),)).to_pylist():
        infos[row["type"]] = TypeInfo(row["typname"], row["typtype"], row["typcategory"], row["send"])
        parts.setdefault(row["whole"], []).append((row["name"], row["type"], row["typmod"]))
    return infos, parts


def _with_schemas(columns: list[dict[str, Any]], made: Made, policy: TypePolicy) -> Iterator[tuple[Any, ...]]:
    """Yield a row per table, with the Arrow schema of its columns."""
    for key, members in groupby(columns, TABLE_KEY):
        known = [member for member in members if member["name"] is not None]
        planned = plan([_column(member, made) for member in known], policy).schema
        fields = [_field(field, member) for field, member in zip(planned, known, strict=True)]
        yield (*key, pa.schema(fields).serialize().to_pybytes())


def _column(member: dict[str, Any], made: Made) -> Column:
    infos, parts = made
    oid = member["type_oid"]
    info = TypeInfo(member["type_name"], member["kind"], member["category"], member["send"])
    return replace(
        column_of(member["name"], oid, member["typmod"], {**infos, oid: info}, parts),
        display_type=member["display_type"],
        not_null=member["not_null"],
        comment=member["comment"],
    )


def _field(field: pa.Field, member: dict[str, Any]) -> pa.Field:
    told = ColumnFacts(
        catalog_name=member["catalog"],
        schema_name=member["schema"],
        table_name=member["table_name"],
        is_auto_increment=member["auto_increment"],
        is_read_only=True,
        is_searchable=True,
        **facts(field),
    )
    return field.with_metadata({**(field.metadata or {}), **told.metadata()})
