"""pgflight, read over Flight: by pyarrow.flight alone, and by the client library.

Connecting to the server is part of a read; the server's connections to PostgreSQL are open already, as in service.
Only what uses the client library imports it: imports count in a process's memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pyarrow import flight

from benchmark.target import Target


def raw(target: Target) -> Iterator[pa.RecordBatch]:
    """One stream, the framing left to the server, drained by pyarrow.flight."""
    return _do_get(target, streams=1)


def raw_copy(target: Target) -> Iterator[pa.RecordBatch]:
    """One stream of COPY, drained by pyarrow.flight."""
    return _do_get(target, streams=1, framing="copy")


def raw_parallel(target: Target) -> Iterator[pa.RecordBatch]:
    """Several streams, drained by pyarrow.flight."""
    return _do_get(target, streams=target.streams)


def chosen(target: Target) -> Iterator[pa.RecordBatch]:
    """As many streams and whatever options the target names, drained by pyarrow.flight."""
    return _do_get(target, streams=target.streams, **target.options)


def on_device(target: Target) -> Iterator[Any]:
    """The same, the batches left in GPU memory and given back unread."""
    yield from _device_batches(target)


def on_device_used(target: Target) -> Iterator[Any]:
    """The same, a column of numbers summed and a column of text hashed on the GPU."""
    from benchmark.on_gpu import Consumer  # noqa: PLC0415 - see above

    consumer: Consumer | None = None
    for batch in _device_batches(target):
        consumer = consumer or Consumer(batch.schema)
        consumer.use(batch)
        yield batch
    if consumer is not None:
        consumer.result()


def on_device_copied(target: Target) -> Iterator[pa.RecordBatch]:
    """The same, copied to the host: for comparing values."""
    for batch in _device_batches(target):
        with batch:
            yield batch.to_arrow()


def _device_batches(target: Target) -> Iterator[Any]:
    import pgflight  # noqa: PLC0415 - see above

    with pgflight.connect(target.uri) as client:
        reader = client.query(target.sql, streams=target.streams, output="cuda-ipc", **target.options)
        yield from reader.device_batches()


def batches(target: Target) -> Iterator[pa.RecordBatch]:
    """One stream, read batch by batch with the client library."""
    import pgflight  # noqa: PLC0415 - see above

    with pgflight.connect(target.uri) as client:
        yield from client.query(target.sql, streams=1)


def batches_parallel(target: Target) -> Iterator[pa.RecordBatch]:
    """Several streams, read batch by batch with the client library."""
    import pgflight  # noqa: PLC0415 - see above

    with pgflight.connect(target.uri) as client:
        yield from client.query(target.sql, streams=target.streams)


def table(target: Target) -> Iterator[pa.Table]:
    """One stream, collected into a table by the client library."""
    import pgflight  # noqa: PLC0415 - see above

    with pgflight.connect(target.uri) as client:
        yield client.query(target.sql, streams=1).to_arrow()


def _do_get(target: Target, **options: object) -> Iterator[pa.RecordBatch]:
    """Read a ticket; freed batches are kept for reuse, as the client library does."""
    from pgflight.memory import keep_freed_memory  # noqa: PLC0415 - see above

    keep_freed_memory()
    ticket = flight.Ticket(json.dumps({"sql": target.sql, "options": options}).encode())
    with flight.connect(target.uri) as client:
        for chunk in client.do_get(ticket):
            yield chunk.data
