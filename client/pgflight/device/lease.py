"""The leases of this process: one connection per server, on which batches go back when nobody looks at them.

That is left to a thread: a batch may be dropped anywhere, also inside a garbage collection, where nothing may
wait.  The thread first waits for the GPU, which may still read what Python has dropped.
"""

import contextlib
import itertools
import os
import queue
import secrets
import socket
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pgflight.device.cuda import Cuda, cuda
from pgflight.device.descriptor import Descriptor
from pgflight.device.errors import DescriptorError, DeviceError, LeaseError
from pgflight.device.hello import Offer, encode, open_connection, require_near
from pgflight.device.mapping import MAPPINGS, Mappings, Slab

CONNECT_TIMEOUT_S = 10.0
NOWHERE = -1
"""The device of a batch whose slab could not be mapped."""
_MAX_IDS = 1000
"""Leases named in one message."""


@dataclass(frozen=True)
class _Over:
    """A stream that is not read any more."""

    stream: int


class _Close:
    """The connection is not needed any more, once all its leases are over."""


class Lease:
    """The right to read one batch. It is given back when this object is no longer referenced."""

    def __init__(self, connection: "LeaseConnection", number: int) -> None:
        self.connection = connection
        self.number = number


class LeaseConnection:
    """A connection to the lease socket of one server. Safe to share between threads."""

    def __init__(
        self, offer: Offer, cuda: Cuda, mappings: Mappings = MAPPINGS, timeout_s: float = CONNECT_TIMEOUT_S
    ) -> None:
        self.client = secrets.token_hex(16)
        self.cuda = cuda
        welcome = open_connection(offer, self.client, timeout_s)
        self._worker = _Worker(welcome.socket, cuda, mappings, same_process=welcome.pid == os.getpid())
        self._streams = itertools.count(1)
        self._finalizer = weakref.finalize(self, self._worker.orders.put, _Close())
        self._finalizer.atexit = False  # the end of the process closes the connection

    def next_stream(self) -> int:
        """Return a number for one more stream."""
        return next(self._streams)

    def lease(self, described: Descriptor) -> tuple[Slab, Lease]:
        """Take over the lease of a batch that has arrived; return it with the slab where the batch lies.

        Raises
        ------
        LeaseError
            The connection is lost or closed, so is the lease.
        DescriptorError
            The batch is another client's.
        DeviceError
            The slab cannot be mapped; the lease is given back.
        """
        if described.client != self.client:
            raise DescriptorError("the server sent a batch that is lent to another client")
        self.require_open()
        slab = self._worker.adopt(described)
        lease = Lease(self, described.lease)
        weakref.finalize(lease, self._worker.orders.put, described.lease).atexit = False
        return slab, lease

    def done(self, stream: int) -> None:
        """Say that a stream is not read any more: what was under way comes back."""
        self._worker.end(stream)

    def require_open(self) -> None:
        """Raise if the server is gone, and its memory with it.

        Raises
        ------
        LeaseError
            The connection is lost.
        """
        self._worker.require_open()

    @property
    def is_open(self) -> bool:
        """Whether the server is still there."""
        try:
            self.require_open()
        except LeaseError:
            return False
        return self._finalizer.alive

    def close(self) -> None:
        """Close the connection as soon as no batch that came by it is referenced any more."""
        self._finalizer()


class LeaseConnections:
    """The lease connections of a client, by lease socket. Safe to share between threads."""

    def __init__(self, make_cuda: Callable[[], Cuda] = cuda) -> None:
        self._make_cuda = make_cuda
        self._by_path: dict[str, LeaseConnection] = {}
        self._lock = threading.Lock()

    def open(self, said: Mapping[str, Any]) -> LeaseConnection:
        """Return the connection to the server that makes this offer, a new one where there is none.

        Raises
        ------
        DeviceError
            Of the class that says why there can be none.
        """
        offer = Offer.parse(said)
        require_near(offer)  # before CUDA is looked for: it is the better reason
        with self._lock:
            known = self._by_path.get(offer.free_data)
            if known is None or not known.is_open:
                known = self._by_path[offer.free_data] = LeaseConnection(offer, self._make_cuda())
            return known

    def close(self) -> None:
        """Close all, each as soon as its last batch is dropped."""
        with self._lock:
            connections = list(self._by_path.values())
            self._by_path.clear()
        for connection in connections:
            connection.close()


class _Worker:
    """The connection's thread, and what it and the readers share."""

    def __init__(self, connection: socket.socket, cuda: Cuda, mappings: Mappings, *, same_process: bool) -> None:
        self.orders: queue.SimpleQueue[int | _Over | _Close] = queue.SimpleQueue()
        """Leases to give back, and more; the one queue whose put may interrupt its own put."""
        self._socket = connection
        self._cuda = cuda
        self._mappings = mappings
        self._same_process = same_process
        self._lock = threading.Lock()
        self._held: dict[int, tuple[int, int]] = {}
        """By lease: its stream, and the device it lies on."""
        self._ended: set[int] = set()
        self._slabs: dict[bytes, Slab] = {}
        self._over = ""
        _workers.add(self)
        threading.Thread(target=self._work, name="pgflight-leases", daemon=True).start()

    def adopt(self, described: Descriptor) -> Slab:
        with self._lock:
            if self._over or described.stream in self._ended:
                raise LeaseError(self._over or "the reader of this batch was closed")
            if described.lease in self._held:
                raise DescriptorError("the server lent one lease twice")
            self._held[described.lease] = (described.stream, NOWHERE)
            try:
                slab = self._slab(described)
            except DeviceError:
                self.orders.put(described.lease)
                raise
            self._held[described.lease] = (described.stream, slab.ordinal)
        return slab

    def end(self, stream: int) -> None:
        # Without a lock: a generator may be closed inside a garbage collection. What was adopted before is in use,
        # as the server will be told; nothing of the stream is adopted after this line.
        self._ended.add(stream)
        self.orders.put(_Over(stream))

    def require_open(self) -> None:
        if self._over:
            raise LeaseError(self._over)
        try:
            gone = self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return
        except OSError:
            gone = True
        if gone:
            raise LeaseError("the server closed the lease connection: its GPU memory may be gone")

    def forget(self) -> None:
        """In a forked child: CUDA does not work there, and the leases are the parent's."""
        self._over = "device batches cannot be read in a forked process: start it with 'spawn' instead"
        self._lock = threading.Lock()
        self._socket.close()

    def _slab(self, described: Descriptor) -> Slab:
        if self._same_process:
            ordinal = self._cuda.ordinal(described.gpu)
            return Slab(described.address, described.slab_bytes, ordinal)
        slab = self._slabs.get(described.remote_handle)
        if slab is None:
            slab = self._slabs[described.remote_handle] = self._mappings.open(self._cuda, described)
        if slab.size_bytes != described.slab_bytes:
            raise DescriptorError("the server describes one slab in two ways")
        return slab

    def _work(self) -> None:
        closing = False
        while not (closing and self._is_over()):
            orders = [self.orders.get()]
            with contextlib.suppress(queue.Empty):
                while True:
                    orders.append(self.orders.get_nowait())
            self._give_back([order for order in orders if isinstance(order, int)])
            for order in orders:
                if isinstance(order, _Over):
                    self._end(order.stream)
            closing = closing or any(isinstance(order, _Close) for order in orders)
        for handle in self._slabs:
            with contextlib.suppress(DeviceError):  # of a context that is gone, mapping and all
                self._mappings.close(self._cuda, handle)
        self._socket.close()

    def _is_over(self) -> bool:
        """Take no more leases, if none is held."""
        with self._lock:
            if not self._held:
                self._over = "the lease connection is closed"
            return not self._held

    def _give_back(self, leases: list[int]) -> None:
        with self._lock:
            ordinals = {self._held[lease][1] for lease in leases} - {NOWHERE}
        for ordinal in ordinals:
            with contextlib.suppress(DeviceError):  # CUDA has failed for good: nothing reads there any more
                self._cuda.synchronize(ordinal)
        for batch in (leases[at : at + _MAX_IDS] for at in range(0, len(leases), _MAX_IDS)):
            self._say({"release": batch})
        with self._lock:
            for lease in leases:
                del self._held[lease]

    def _end(self, stream: int) -> None:
        with self._lock:
            held = [lease for lease, (of, _) in self._held.items() if of == stream]
        self._say({"done": stream, "held": held})

    def _say(self, message: Mapping[str, object]) -> None:
        with contextlib.suppress(OSError):  # the server is gone, and its leases with it
            self._socket.sendall(encode(message))


_workers: "weakref.WeakSet[_Worker]" = weakref.WeakSet()


def _after_fork() -> None:
    for worker in list(_workers):
        worker.forget()


os.register_at_fork(after_in_child=_after_fork)
