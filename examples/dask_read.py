"""Sum a column of a PostgreSQL table with Dask.

python examples/dask_read.py grpc://127.0.0.1:8815 lineorder lo_quantity
"""

import sys

import pgflight.dask


def main(uri: str, table: str, column: str) -> None:
    """Read by eight partitions, under one snapshot."""
    frame = pgflight.dask.read(uri, table, columns=[column], partitions=8)
    print(frame[column].sum().compute())


if __name__ == "__main__":
    main(*sys.argv[1:])
