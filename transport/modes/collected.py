"""Replies that are collected whole before the first row is looked at: the simple ways, kept for comparison."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kernels.errors import ConnectionLostError
from kernels.typing import Region, Uint8s
from transport.messages import READY_BYTES
from transport.modes.stores import MakeStore, Store
from transport.reader import Reader
from transport.reply import Reply

READY_HEAD = b"Z\0\0\0\5"


class Nothing:
    """The region of a reply of which nothing has been received."""

    array: Uint8s = np.zeros(64, np.uint8)


NOTHING = Nothing()


def allocate_nothing(_size_bytes: int) -> Region:
    """Return no memory: a store brings its own."""
    return NOTHING


class Tail:
    """The last bytes of what was received: they may look like the end of a reply, which proves nothing."""

    def __init__(self) -> None:
        self._bytes = b""

    def add(self, received: memoryview) -> None:
        """Look at what was received."""
        last = bytes(received[-READY_BYTES:])
        self._bytes = (self._bytes + last)[-READY_BYTES:]

    @property
    def may_be_end(self) -> bool:
        """Whether they look like ReadyForQuery."""
        return len(self._bytes) == READY_BYTES and self._bytes.startswith(READY_HEAD)


class CollectedReply(Reply):
    """A reply whose block is all of it.

    Collecting ends where the bytes look like the end of a reply.  Should the walk find that they only looked like
    it, what is left is put in front of what is collected next.

    Parameters
    ----------
    reader : Reader
    make_store : callable
        Makes the store that each reply is collected in.
    check : callable
        Called while waiting, at least every 0.1 s; raises to give up.
    """

    def __init__(self, reader: Reader, make_store: MakeStore, *, check: Callable[[], None]) -> None:
        super().__init__(reader, allocate_nothing, block_bytes=0, max_row_bytes=0, check=check)
        self._make_store = make_store

    def fill(self) -> None:
        """Receive until it looks as if all were there."""
        if self._lost is not None:
            self._raise(self._lost)
        rest = self.block[self.begin : self.end].tobytes()
        self._region = NOTHING  # given back first
        self.base += self.begin
        self.begin = self.end = 0
        store, tail = self._make_store(), Tail()
        _put(store, rest)
        while not tail.may_be_end:
            self._check()
            view = store.room()
            try:
                count = self._reader.receive(view)
            except ConnectionLostError as failure:
                # PostgreSQL says why before it hangs up; only the caller's walk finds that message.
                if not store.size:
                    raise
                self._lost = failure
                break
            if count:
                tail.add(view[:count])
                store.took(count)
                self.received_bytes += count
        self.end = store.size
        self._region = store.finish()


def _put(store: Store, data: bytes) -> None:
    """Store bytes that are here already."""
    while data:
        view = store.room()
        count = min(len(view), len(data))
        view[:count] = data[:count]
        store.took(count)
        data = data[count:]
