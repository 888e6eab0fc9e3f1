"""Read PostgreSQL through a pgflight server: query results as Arrow, Polars, pandas or files."""

from importlib.metadata import PackageNotFoundError, version

from pgflight.client import Client, TableInfo, connect
from pgflight.partitions import Partition, Plan, SnapshotEndedError
from pgflight.raw import RawDeviceBatch, RawFile, RawFileError, open_raw
from pgflight.reader import Progress, Reader

__all__ = [
    "Client", "Partition", "Plan", "Progress", "RawDeviceBatch", "RawFile", "RawFileError", "Reader",
    "SnapshotEndedError", "TableInfo", "__version__", "connect", "open_raw",
]  # fmt: skip

try:
    __version__ = version("pgflight")
except PackageNotFoundError:  # run from a source tree on the path
    __version__ = "0+source"
