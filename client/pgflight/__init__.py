"""Read PostgreSQL through a pgflight server: query results as Arrow, Polars, pandas or files."""

from importlib.metadata import version

from pgflight.client import Client, TableInfo, connect
from pgflight.reader import Progress, Reader

__all__ = ["Client", "Progress", "Reader", "TableInfo", "__version__", "connect"]

__version__ = version("pgflight")
