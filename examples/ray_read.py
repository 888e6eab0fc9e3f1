"""Sum a column of a PostgreSQL table with Ray.

python examples/ray_read.py grpc://127.0.0.1:8815 lineorder lo_quantity
"""

import sys

import pgflight.ray


def main(uri: str, table: str, column: str) -> None:
    """Read by eight tasks, under one snapshot."""
    print(pgflight.ray.read(uri, table, columns=[column], partitions=8).sum(column))


if __name__ == "__main__":
    main(*sys.argv[1:])
