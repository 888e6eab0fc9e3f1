"""Memory in which a server on this host leaves batches: read in place instead of received.

The memory is this process's own (a sealed memfd): the server opens it by the offer that goes with a read, makes
sure that it is the one that was meant, and writes batches into its slots. A server that cannot open it, on another
host or in another container, sends batches as always. The server's ``transport/shared.py`` tells the layout.
"""

import ctypes
import fcntl
import mmap
import os
import secrets
import struct
import sys
import threading
import weakref

import pyarrow as pa
from pyarrow import flight, ipc

SHARED_HEADER = "pgflight-shared"
"""The gRPC header of a ``DoGet`` that offers memory: ``<pid>.<fd>.<nonce>``."""
BATCH_HEADER = "x-pgflight-batch-bytes"
"""That of a plan, for the option where the query does not name it."""
MAGIC = b"PGFLSHM1"
HEAD = struct.Struct("<8s16sIxxxxQ")
TOLD = struct.Struct("<8sIxxxxQ")
STATES_AT, SLOTS_AT = 64, 65536
SLOTS, SLOT_BYTES = 12, 4 << 20
BATCH_BYTES = 2 << 20
"""What is asked for where memory is offered: nothing is copied that larger batches would drive from the cache."""
MOST_HELD = SLOTS // 2
"""Batches that are handed out in place; further ones are copied, so that the server has room."""
IS_LINUX = sys.platform == "linux"


class SharedMemory:
    """Slots for one read at a time.

    Parameters
    ----------
    read_options
        For batches that are read in place.
    """

    def __init__(self, read_options: ipc.IpcReadOptions) -> None:
        size = SLOTS_AT + SLOTS * SLOT_BYTES
        self._descriptor = os.memfd_create("pgflight", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self._descriptor, size)
            fcntl.fcntl(
                self._descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            )
            self._memory = mmap.mmap(self._descriptor, size)
        except OSError:
            os.close(self._descriptor)
            raise
        self._nonce = secrets.token_bytes(16)
        self._process = os.getpid()
        self._read_options = read_options
        self._held: set[int] = set()
        HEAD.pack_into(self._memory, 0, MAGIC, self._nonce, SLOTS, SLOT_BYTES)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        weakref.finalize(self, os.close, self._descriptor)
        _all.add(self)

    @property
    def headers(self) -> dict[str, str]:
        """What to send along with the ``DoGet``."""
        return {SHARED_HEADER: f"{self._process}.{self._descriptor}.{self._nonce.hex()}"}

    @property
    def is_usable(self) -> bool:
        """Whether a read may have it: it is this process's, and most slots are free."""
        return self._process == os.getpid() and self._memory[STATES_AT : STATES_AT + SLOTS].count(1) < MOST_HELD

    def batch(self, chunk: flight.FlightStreamChunk, *, keep: bool) -> pa.RecordBatch | None:
        """Return the batch that a chunk tells of; None if it came with the chunk.

        Parameters
        ----------
        chunk
        keep
            Whether it is to be kept: then it is copied, and the slot is free.

        Raises
        ------
        pyarrow.ArrowInvalid
            The server said something that cannot be.
        """
        told = chunk.app_metadata
        if told is None or told.size != TOLD.size:
            return None
        magic, slot, length = TOLD.unpack(told)
        if magic != MAGIC:
            return None
        if slot >= SLOTS or length > SLOT_BYTES or slot in self._held:
            raise pa.ArrowInvalid(f"the server told of {length} bytes in slot {slot} of shared memory")
        copied = keep or len(self._held) >= MOST_HELD
        self._held.add(slot)
        place = pa.foreign_buffer(self._address + SLOTS_AT + slot * SLOT_BYTES, length, _Slot(self, slot))
        with ipc.open_stream(_copy(place) if copied else place, options=self._read_options) as stream:
            return stream.read_next_batch()

    def release(self, slot: int) -> None:
        """Let the server write there again; only the process that was given the batch may."""
        if self._process == os.getpid() and slot in self._held:
            self._held.discard(slot)
            self._memory[STATES_AT + slot] = 0

    def trim(self) -> None:
        """Give the memory of free slots back to the system: it may count as the server's, which wrote there."""
        for slot in range(SLOTS):
            if not self._memory[STATES_AT + slot]:
                self._memory.madvise(mmap.MADV_REMOVE, SLOTS_AT + slot * SLOT_BYTES, SLOT_BYTES)

    def freeze(self) -> None:
        """Keep what is held as it is for good: a forked process sees the same memory."""
        self._held.clear()


class SharedMemories:
    """The memory of one client, for as many reads as there are at a time. Safe to share between threads.

    Parameters
    ----------
    read_options
        For batches that are read in place.
    """

    def __init__(self, read_options: ipc.IpcReadOptions) -> None:
        self._read_options = read_options
        self._idle: list[SharedMemory] = []
        self._lock = threading.Lock()

    def take(self) -> SharedMemory | None:
        """Return memory for a read; None where there is none to be had."""
        with self._lock:
            while self._idle:
                memory = self._idle.pop()
                if memory.is_usable:
                    return memory
        try:
            return SharedMemory(self._read_options) if IS_LINUX else None
        except OSError:  # no descriptor or no memory left: batches are received as always
            return None

    def give_back(self, memory: SharedMemory) -> None:
        """Keep memory for the next read; the one before must be over, with nobody left who writes there."""
        memory.trim()
        with self._lock:
            self._idle.append(memory)


class _Slot:
    """What a batch's buffers keep alive: the last of them frees the slot."""

    __slots__ = ("_memory", "_slot")

    def __init__(self, memory: SharedMemory, slot: int) -> None:
        self._memory = memory
        self._slot = slot

    def __del__(self) -> None:
        self._memory.release(self._slot)


_all: weakref.WeakSet[SharedMemory] = weakref.WeakSet()


def _freeze_all() -> None:
    for memory in list(_all):
        memory.freeze()


if IS_LINUX:
    os.register_at_fork(before=_freeze_all)


def _copy(buffer: pa.Buffer) -> pa.Buffer:
    copied = pa.allocate_buffer(buffer.size)
    pa.FixedSizeBufferWriter(copied).write(buffer)
    return copied
