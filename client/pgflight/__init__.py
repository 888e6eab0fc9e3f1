"""Read PostgreSQL through a pgflight server: query results as Arrow, Polars, pandas or files."""

from importlib.metadata import PackageNotFoundError, version

from pgflight.client import Client, TableInfo, connect
from pgflight.reader import Progress, Reader

__all__ = ["Client", "Progress", "Reader", "TableInfo", "__version__", "connect"]

try:
    __version__ = version("pgflight")
except PackageNotFoundError:  # run from a source tree on the path
    __version__ = "0+source"
