"""Batches left in memory that the client has made: see transport/shared.py."""

from __future__ import annotations

import struct
from typing import Any

import pyarrow as pa
from pyarrow import ipc

from transport.shared import MAGIC, SharedMemory

TOLD = struct.Struct("<8sIxxxxQ")
"""The magic, a slot and its length in bytes: the metadata of an empty batch that stands for one in memory."""
LEAST_SHARED_BYTES = 64 << 10
"""Smaller batches travel as fast with the message that tells of them."""
WRITE_OPTIONS = ipc.IpcWriteOptions()  # else the environment is looked at for every batch
END_BYTES = 64
"""More than the end of an IPC stream takes."""


class SharedBatches:
    """Writes the batches of one read into a client's memory.

    Parameters
    ----------
    memory : SharedMemory
    schema : Schema
    """

    def __init__(self, memory: SharedMemory, schema: pa.Schema) -> None:
        self._memory = memory
        self._schema = schema
        self._empty = pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)
        self._overhead_bytes = schema.serialize().size + END_BYTES
        self._slots = [pa.py_buffer(memory.slot(number)) for number in range(memory.slots)]

    def replace(self, sent: Any) -> Any:
        """Write a batch, and return what is sent in its stead; return as it is what has to be sent.

        That is what is no batch, is small or does not fit, and all of it while the client holds every slot.
        """
        return (self._put(sent) if isinstance(sent, pa.RecordBatch) else None) or sent

    def _put(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, pa.Buffer] | None:
        size = ipc.get_record_batch_size(batch)
        slot = self._memory.free_slot()
        if slot is None or size < LEAST_SHARED_BYTES or self._overhead_bytes + size > self._memory.slot_bytes:
            return None
        sink = pa.FixedSizeBufferWriter(self._slots[slot])
        with ipc.new_stream(sink, self._schema, options=WRITE_OPTIONS) as writer:
            writer.write_batch(batch)
        self._memory.lend(slot)
        return self._empty, pa.py_buffer(TOLD.pack(MAGIC, slot, sink.tell()))
