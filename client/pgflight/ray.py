"""PostgreSQL tables and queries as Ray datasets, partition by partition, all under one snapshot."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pyarrow as pa
import ray
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from pgflight.client import connect
from pgflight.partitions import Partition


def read(
    uri: str,
    query: str,
    params: Sequence[object] | None = None,
    *,
    partitions: int = 8,
    columns: Sequence[str] | None = None,
    where: str | None = None,
    connection: dict[str, Any] | None = None,
    **options: object,
) -> Any:
    """Plan a read and return it as a lazy Ray dataset.

    The tasks read the partitions from the server, or from its replicas. The snapshot is held for some minutes
    after it was last read: consume soon, and materialise what is needed for longer.

    Parameters
    ----------
    uri
        Of the server.
    query, params, columns, where, **options
        As for :meth:`pgflight.Client.plan`.
    partitions
        At most so many.
    connection
        Further arguments of :func:`pgflight.connect`: ``token``, ``tls_root_certs`` and so on.

    Returns
    -------
    ray.data.Dataset
    """
    with connect(uri, **(connection or {})) as client:
        plan = client.plan(query, params, partitions=partitions, columns=columns, where=where, **options)
    return ray.data.read_datasource(PartitionSource(plan.partitions))


class PartitionSource(Datasource):
    """One read task for each partition of a plan."""

    def __init__(self, partitions: Sequence[Partition]) -> None:
        self._partitions = tuple(partitions)

    def estimate_inmemory_data_size(self) -> int | None:
        """Return nothing: the server's estimate is of all its rows."""
        return None

    def get_read_tasks(self, *_wanted: object, **_more: object) -> list[ReadTask]:
        """Return the tasks; their number is the plan's."""
        return [ReadTask(_task(partition), _unknown(), schema=partition.schema) for partition in self._partitions]


def _task(partition: Partition) -> Callable[[], Iterable[pa.Table]]:
    return lambda: [partition.read()]


def _unknown() -> BlockMetadata:
    return BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
