"""PostgreSQL tables and queries as a data source of Spark (and of what speaks Spark), partition by partition.

::

    spark.dataSource.register(PgflightDataSource)
    spark.read.format("pgflight").option("uri", "grpc://…").option("query", "select …").load()

Options: ``uri``, ``query`` (SQL or a table's name), ``columns`` (with commas between), ``where``, ``partitions``
(8), ``token``; all others go to the server.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructType

from pgflight import partitions
from pgflight.client import Client, connect

OURS = ("uri", "query", "columns", "where", "partitions", "token")
WIDER = {
    pa.uint8(): pa.int16(), pa.uint16(): pa.int32(), pa.uint32(): pa.int64(), pa.uint64(): pa.decimal128(20, 0),
    pa.time64("us"): pa.string(),
}  # fmt: skip
"""Arrow types that Spark has no word for, and where their values fit without loss."""


class PgflightDataSource(DataSource):
    """The data source ``pgflight``."""

    @classmethod
    def name(cls) -> str:
        """Return the format's name."""
        return "pgflight"

    def schema(self) -> StructType:
        """Return the columns as Spark sees them."""
        with _client(self.options) as client:
            schema = client.schema(self.options["query"], **_server_options(self.options))
        columns = self.options.get("columns")
        if columns:
            schema = pa.schema([schema.field(name.strip()) for name in columns.split(",")])
        return from_arrow_schema(spark_schema(schema), prefer_timestamp_ntz=True)

    def reader(self, schema: StructType) -> "PartitionReader":  # noqa: ARG002 - it is ours
        """Return the reader."""
        return PartitionReader(dict(self.options))


@dataclass
class PlannedPartition(InputPartition):
    """A partition on its way to an executor."""

    partition: partitions.Partition


class PartitionReader(DataSourceReader):
    """Plans on the driver, reads on the executors."""

    def __init__(self, options: Mapping[str, str]) -> None:
        self._options = dict(options)

    def partitions(self) -> list[InputPartition]:
        """Plan the read."""
        options, columns = self._options, self._options.get("columns")
        with _client(options) as client:
            plan = client.plan(
                options["query"],
                partitions=int(options.get("partitions", 8)),
                columns=[name.strip() for name in columns.split(",")] if columns else None,
                where=options.get("where"),
                **_server_options(options),
            )
        return [PlannedPartition(partition) for partition in plan.partitions]

    def read(self, planned: Any) -> Iterator[pa.RecordBatch]:
        """Read one partition: whole, so that a lost server is made up for by another."""
        table = planned.partition.read()
        yield from table.cast(spark_schema(table.schema)).to_batches()


def spark_schema(schema: pa.Schema) -> pa.Schema:
    """Return a schema whose types Spark knows and to which the values can be cast without loss.

    Raises
    ------
    TypeError
        Naming the column whose type has no such form, and the way out.
    """
    return pa.schema([pa.field(field.name, _spark_type(field), field.nullable) for field in schema])


def _spark_type(field: pa.Field) -> pa.DataType:
    kind = field.type.storage_type if isinstance(field.type, pa.BaseExtensionType) else field.type
    if pa.types.is_fixed_size_binary(kind):
        return pa.binary()
    if pa.types.is_decimal256(kind) or pa.types.is_interval(kind):
        raise TypeError(f"column {field.name!r}: Spark has no {kind}; cast it to text in the query")
    return WIDER.get(kind, kind)


def _client(options: Mapping[str, str]) -> Client:
    return connect(options["uri"], token=options.get("token"))


def _server_options(options: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in options.items() if name not in OURS}
