"""PostgreSQL tables and queries as Dask data frames, partition by partition, all under one snapshot."""

from collections.abc import Sequence
from typing import Any

import dask
import dask.dataframe as dd
import pyarrow as pa

from pgflight import convert
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
    """Plan a read and return it as a lazy Dask data frame.

    The workers read the partitions from the server, or from its replicas. The snapshot is held for some minutes
    after it was last read: compute soon, and persist what is needed for longer.

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
    dask.dataframe.DataFrame
        Of pandas frames with Arrow's types, which keep integers with NULLs exact; of cuDF frames where Dask's
        setting ``dataframe.backend`` is ``cudf``.
    """
    with connect(uri, **(connection or {})) as client:
        plan = client.plan(query, params, partitions=partitions, columns=columns, where=where, **options)
    backend = dask.config.get("dataframe.backend", "pandas")
    meta = _frame(plan.schema.empty_table(), backend)
    from_map: Any = dd.from_map
    return from_map(_read, list(plan.partitions), backend=backend, meta=meta, label="pgflight")


def _read(partition: Partition, backend: str) -> Any:
    return _frame(partition.read(), backend)


def _frame(table: pa.Table, backend: str) -> Any:
    if backend == "cudf":
        import cudf  # noqa: PLC0415 - where there are GPUs

        return cudf.DataFrame.from_arrow(table)
    import pandas as pd  # noqa: PLC0415 - Dask brings it

    return convert.for_pandas(table).to_pandas(types_mapper=pd.ArrowDtype)
