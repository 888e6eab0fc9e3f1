"""What a client is told of a batch in GPU memory: where it is, how it is laid out, and what to send when done.

Sent as JSON in the ``app_metadata`` of an empty batch.  Names follow Arrow's Dissociated IPC where it has them:
``remote_handle`` is the memory, ``free_data`` where to say that it is not needed any more.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

VERSION = 1
BUFFER_ALIGN_BYTES = 64

Extent = tuple[int, int]
"""Offset and length in bytes."""


@dataclass(frozen=True, slots=True)
class ColumnExtents:
    """The buffers of a column, in Arrow's order.

    Parameters
    ----------
    null_count : int
        Exact: libcudf does not count.
    buffers : sequence of (offset, length) or None
        Validity (None where there is no NULL), then values, or offsets and data.  Offsets count from the region's
        start; all but those of data are multiples of 64.
    children : sequence of ColumnExtents
        The values of a list, the fields of a struct, the entries of a map; in Arrow's order.
    values : int or None
        How many a child has; None for a column, which has the batch's rows.
    """

    null_count: int
    buffers: Sequence[Extent | None]
    children: Sequence[ColumnExtents] = ()
    values: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceDescriptor:
    """One batch.

    Parameters
    ----------
    gpu : str
        UUID of its GPU: ordinals differ between processes.
    remote_handle : bytes
        CUDA IPC handle of the slab.
    slab_bytes, offset, length : int
        The slab, and the batch's region in it.
    address : int
        Of the slab in the server's process, for readers there: a process cannot open its own handles.
    rows : int
    columns : sequence of ColumnExtents
    client : str
        The client that holds the lease.
    stream, lease : int
        The number that the client gave the stream, and the lease's.
    expires : float
        Unix time in seconds after which the lease is over.
    free_data : str
        Path of the lease socket.
    """

    gpu: str
    remote_handle: bytes
    slab_bytes: int
    offset: int
    length: int
    address: int
    rows: int
    columns: Sequence[ColumnExtents]
    client: str
    stream: int
    lease: int
    expires: float
    free_data: str

    def to_json(self) -> bytes:
        """Return the descriptor as it is sent."""
        fields = asdict(self) | {"remote_handle": base64.b64encode(self.remote_handle).decode()}
        return json.dumps({"version": VERSION} | fields, separators=(",", ":")).encode()
