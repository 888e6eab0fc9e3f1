"""Batches for a client on this host, written into memory that the client has made and reads in place.

The client makes a sealed memfd and says where it is; a server that cannot open it (on another host, in another
container) sends batches as always.  It is the client's memory: it outlives the server's part in it.

::

    0                          64              65536
    | head                     | a byte a slot | slots, each an Arrow IPC stream
    | magic nonce slots bytes  | 0 free 1 lent | of one batch

The server lends a slot by setting its byte before it tells of it; the client clears it when it is read no more.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import struct
import sys
from pathlib import Path

import structlog

log = structlog.get_logger("pgflight.transport")

MAGIC = b"PGFLSHM1"
HEAD = struct.Struct("<8s16sIxxxxQ")
STATES_AT, SLOTS_AT = 64, 65536
MOST_SLOTS = 4096
MOST_BYTES = 256 << 20
OFFER = re.compile(r"(\d{1,10})\.(\d{1,7})\.([0-9a-f]{32})")
SEALS = (
    fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL if sys.platform == "linux" else 0
)  # what is mapped stays


class SharedMemory:
    """A client's memory, as this process has it mapped.

    Parameters
    ----------
    memory : mmap
    slots : int
    slot_bytes : int
    """

    def __init__(self, memory: mmap.mmap, slots: int, slot_bytes: int) -> None:
        self.memory = memory
        self.slots = slots
        self.slot_bytes = slot_bytes

    @classmethod
    def opened(cls, offer: str) -> SharedMemory | None:
        """Map the memory that a client offers: ``<pid>.<fd>.<nonce>``; None if it is not to be had from here.

        Whatever a client names is opened only if it is a memfd, and written to only if it holds the nonce: the
        client can read that memory.
        """
        parts = OFFER.fullmatch(offer)
        if parts is None or sys.platform != "linux":
            return None
        path = Path("/proc", parts[1], "fd", parts[2])
        try:
            if not str(path.readlink()).startswith("/memfd:pgflight"):
                return None
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return None
        try:
            return cls._mapped(descriptor, bytes.fromhex(parts[3]))
        except OSError as failure:
            log.debug("a client's memory cannot be mapped", error=str(failure))
            return None
        finally:
            os.close(descriptor)

    @classmethod
    def _mapped(cls, descriptor: int, nonce: bytes) -> SharedMemory | None:
        if fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & SEALS != SEALS:
            return None
        size = os.fstat(descriptor).st_size
        if not SLOTS_AT < size <= MOST_BYTES:
            return None
        memory = mmap.mmap(descriptor, size)
        magic, held, slots, slot_bytes = HEAD.unpack_from(memory)
        sound = 0 < slots <= MOST_SLOTS and slot_bytes % 64 == 0 and SLOTS_AT + slots * slot_bytes <= size
        return cls(memory, slots, slot_bytes) if magic == MAGIC and held == nonce and sound else None

    def free_slot(self) -> int | None:
        """Return the first slot that is not lent: the one that is most likely still in the cache."""
        found = self.memory.find(b"\0", STATES_AT, STATES_AT + self.slots)
        return found - STATES_AT if found >= 0 else None

    def slot(self, number: int) -> memoryview:
        """Return the bytes of a slot."""
        begin = SLOTS_AT + number * self.slot_bytes
        return memoryview(self.memory)[begin : begin + self.slot_bytes]

    def lend(self, number: int) -> None:
        """Mark a slot as the client's to read."""
        self.memory[STATES_AT + number] = 1
