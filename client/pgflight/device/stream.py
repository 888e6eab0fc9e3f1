"""One read of device batches: what the reader tells the server, and what becomes of the chunks that arrive."""

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from pgflight.device.batch import DeviceBatch
from pgflight.device.descriptor import parse
from pgflight.device.errors import DescriptorError
from pgflight.device.lease import LeaseConnection

LEASE_HEADER = "pgflight-lease"
"""The gRPC header of a ``DoGet`` that says to whom its batches are lent."""


class DeviceStream:
    """One read: a number on a lease connection."""

    def __init__(self, connection: LeaseConnection) -> None:
        self._connection = connection
        self._number = connection.next_stream()

    @property
    def headers(self) -> dict[str, str]:
        """What to send along with every ``DoGet`` of the read."""
        return {LEASE_HEADER: f"{self._connection.client}.{self._number}"}

    def batches(self, chunks: Iterable[Any], schema: pa.Schema) -> Iterator[DeviceBatch]:
        """Turn the chunks of the read into batches; when it ends, in whatever way, so does the stream.

        Parameters
        ----------
        chunks
            Flight's, each with the descriptor of a batch as ``app_metadata``.
        schema
            Of the read.

        Raises
        ------
        DeviceError
            Of the class that says why a batch cannot be read.
        """
        try:
            for chunk in chunks:
                yield self.batch(chunk.app_metadata, schema)
        finally:
            self.close()

    def batch(self, app_metadata: Any, schema: pa.Schema) -> DeviceBatch:
        """Take over the batch that a descriptor describes.

        Raises
        ------
        DeviceError
            Of the class that says why it cannot be read.
        """
        if app_metadata is None:
            raise DescriptorError("the server sent a batch without a descriptor")
        described = parse(bytes(app_metadata), schema)
        if described.stream != self._number:
            raise DescriptorError("the server sent a batch of another stream")
        slab, lease = self._connection.lease(described)
        return DeviceBatch(schema, described, slab, lease, self._connection.cuda)

    def close(self) -> None:
        """Say that nothing more is read: batches under way go back, those that have arrived stay."""
        self._connection.done(self._number)
