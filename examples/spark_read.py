"""Sum a column of a PostgreSQL table with Spark.

python examples/spark_read.py grpc://127.0.0.1:8815 lineorder lo_quantity
"""

import sys

from pyspark.sql import SparkSession

from pgflight.spark import PgflightDataSource


def main(uri: str, table: str, column: str) -> None:
    """Read by eight tasks, under one snapshot."""
    spark = SparkSession.builder.getOrCreate()
    spark.dataSource.register(PgflightDataSource)
    source = spark.read.format("pgflight").option("uri", uri).option("query", table)
    frame = source.option("columns", column).option("partitions", 8).load()
    print(frame.groupBy().sum(column).collect()[0][0])


if __name__ == "__main__":
    main(*sys.argv[1:])
