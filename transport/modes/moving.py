"""How the replies of one read move: the transport that was asked for, applied to each of its streams."""

from __future__ import annotations

import threading
from collections.abc import Callable
from copy import copy
from functools import partial

from kernels.typing import Allocate
from transport.memory import RegionPool
from transport.modes.collected import CollectedReply
from transport.modes.counters import CountedReader, Counters, total
from transport.modes.device import DeviceFileReply, DeviceOffsetBuffer, DeviceReply, DeviceSide, has_cufile
from transport.modes.stores import STORES
from transport.modes.through_file import ThroughFile
from transport.reader import Reader
from transport.reply import Reply
from transport.spool import Recording

PINNED = "pinned"
CHUNKED = "chunked"
GDS = "gds"
FILE = "file"
COLLECTING = tuple(STORES)
TRANSPORTS = (PINNED, *COLLECTING, GDS, FILE)


class Ring(Reply):
    """The default: one block, filled and decoded in place, again and again.

    Parameters
    ----------
    counters : Counters
        What is taken and copied is counted there.
    reader, allocate, block_bytes, max_row_bytes, check, patience_s
        As for `Reply`.
    """

    def __init__(
        self,
        counters: Counters,
        reader: Reader,
        allocate: Allocate,
        *,
        block_bytes: int,
        max_row_bytes: int,
        check: Callable[[], None],
        patience_s: float,
    ) -> None:
        self._counters = counters
        super().__init__(
            reader,
            counters.counting(allocate),
            block_bytes=block_bytes,
            max_row_bytes=max_row_bytes,
            check=check,
            patience_s=patience_s,
        )

    def _make_room(self) -> None:
        if self.begin and self.end > self.begin:
            self._counters.copied(self.end - self.begin)  # the row that is there in part moves to the front
        super()._make_room()


MakeSource = Callable[[Reader, Counters], Reader]


class Moving:
    """Makes the replies of one read.  Thread-safe.

    Parameters
    ----------
    name : str
        One of TRANSPORTS.
    collecting : RegionPool
        Where replies are collected by the transports that do.
    limit_bytes : int
        How much of each stream they may collect.
    recording : Recording, optional
        What is received is written there; ``gds`` also reads it from there.
    stored : bool
        The streams are files already.
    """

    def __init__(
        self,
        name: str,
        *,
        collecting: RegionPool,
        limit_bytes: int,
        recording: Recording | None = None,
        stored: bool = False,
    ) -> None:
        self.name = name
        self._collecting = collecting
        self._limit_bytes = limit_bytes
        self._recording = recording
        self._stored = stored
        self.side: DeviceSide | None = None
        self._counters: list[Counters] = []
        self._lock = threading.Lock()

    def __call__(
        self,
        reader: Reader,
        allocate: Allocate,
        /,
        *,
        block_bytes: int,
        max_row_bytes: int,
        check: Callable[[], None],
        patience_s: float,
    ) -> Reply:
        """Make the reply of one stream."""
        return self.over(
            self._source,
            reader,
            allocate,
            block_bytes=block_bytes,
            max_row_bytes=max_row_bytes,
            check=check,
            patience_s=patience_s,
        )

    def over(
        self,
        make_source: MakeSource,
        reader: Reader,
        allocate: Allocate,
        /,
        *,
        block_bytes: int,
        max_row_bytes: int,
        check: Callable[[], None],
        patience_s: float,
    ) -> Reply:
        """Make a reply that reads what `make_source` puts over the connection's reader."""
        counters = self.new_counters()
        source = make_source(reader, counters)
        side = self.side
        if side is not None and self.name == CHUNKED:
            side.resident = True
            make_device_store = partial(DeviceOffsetBuffer, side, self._limit_bytes, counters)
            return DeviceReply(side, source, make_device_store, check=check)
        if side is not None and isinstance(source, ThroughFile) and has_cufile():
            side.resident = True
            return DeviceFileReply(
                side, source, counters, block_bytes=block_bytes, max_row_bytes=max_row_bytes, check=check
            )
        if self.name in STORES:
            make_store = partial(STORES[self.name], self._collecting.allocate, self._limit_bytes, counters)
            return CollectedReply(source, make_store, check=check)
        return Ring(
            counters,
            source,
            allocate,
            block_bytes=block_bytes,
            max_row_bytes=max_row_bytes,
            check=check,
            patience_s=patience_s,
        )

    def to(self, side: DeviceSide | None) -> Moving:
        """Return the same for one stream that is decoded on a GPU, where `side` is its; counters are shared."""
        if side is None:
            return self
        moved = copy(self)
        moved.side = side
        return moved

    def new_counters(self) -> Counters:
        """Return counters that `facts` will add up."""
        counters = Counters()
        with self._lock:
            self._counters.append(counters)
        return counters

    def facts(self) -> dict[str, object]:
        """Return what was done so far."""
        with self._lock:
            return {"transport": self.name, "moved": total(self._counters).facts()}

    def close(self) -> None:
        """Return the memory of collected replies to the operating system."""
        if self.name in STORES:
            self._collecting.trim()

    def _source(self, reader: Reader, counters: Counters) -> Reader:
        counted = CountedReader(reader, counters, stored=self._stored)
        if self._recording is None:
            return counted
        if self.name == GDS:
            return ThroughFile(counted, self._recording.sink(), counters)
        return self._recording.recorder(counted)
