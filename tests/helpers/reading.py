"""Read a statement through transport and kernels, without Flight."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from flight_server.reading import statement
from flight_server.reading.replies import decode_replies
from kernels import wire
from kernels.backend import select_backend
from kernels.decoder import Decoder
from kernels.plan import TypePolicy, plan
from transport.memory import RegionPool
from transport.opening import SessionOptions
from transport.pool import ConnectionPool
from transport.session import Session


def read(
    pool: ConnectionPool,
    memory: RegionPool,
    sql: str,
    *,
    framing: str = "extended",
    reader: str = "auto",
    batch_bytes: int = 1 << 20,
    policy: TypePolicy | None = None,
    check: Callable[[], None] = lambda: None,
) -> pa.Table:
    """Return the rows of a statement as a table."""
    options = SessionOptions(block_bytes=batch_bytes, reader=reader)
    with Session(pool, options) as session:
        planned = plan(session.describe(sql), policy)
        asked = statement.binary_request(statement.with_casts(sql, planned.casts), (), framing)
        kind = wire.COPY_DATA if asked.copy else wire.DATA_ROW
        decoder = Decoder(planned, select_backend(), memory.allocate, kind=kind, batch_bytes=batch_bytes)
        reply = session.run(asked, memory.allocate, check)
        batches = list(decode_replies(reply, decoder, copy=asked.copy))
        for batch in batches:
            batch.validate(full=True)
        return pa.Table.from_batches(batches, planned.schema)
