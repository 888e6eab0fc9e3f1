"""Batches that same-host clients read in place: a region for each, lent to one client at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from kernels.errors import ConfigError, OverloadedError, RequestError
from transport.device.arrays import View, view
from transport.device.cuda import Cuda, CudaError, Gpu
from transport.device.descriptor import ColumnExtents, DeviceDescriptor
from transport.device.ledger import Account, LeaseLimits, Ledger, require_wanted
from transport.device.regions import ExportRegion, Loan
from transport.device.returns import Returns
from transport.device.slabs import Place, SlabSet, rounded

log = structlog.get_logger("pgflight.transport")

LOOK_S = 0.05
"""How often a waiting producer looks whether it is still wanted."""


@dataclass(frozen=True, slots=True)
class ExportStatistics:
    """What is lent, for ``info`` and metrics; sizes in bytes."""

    clients: int
    leases: int
    leased_bytes: int
    quarantined_bytes: int
    slab_bytes: int
    free_bytes: int
    waiting: int


class Exports:
    """Lends regions of slabs to clients, within what each and all together may hold.  Thread-safe.

    Parameters
    ----------
    cuda : Cuda
    slabs : sequence of SlabSet
        One per device.
    limits : LeaseLimits
    socket : str
        Where clients give leases back.
    wait_s : float
        How long a producer waits for its client to give something back.
    clock : callable
        Returns the time in seconds, from any beginning.
    make_view : callable
        Makes arrays over addresses.
    """

    def __init__(
        self,
        cuda: Cuda,
        slabs: Sequence[SlabSet],
        limits: LeaseLimits,
        *,
        socket: str,
        wait_s: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
        make_view: View = view,
    ) -> None:
        if not slabs:
            raise ConfigError("exports need a device")
        self.socket = socket
        self.limits = limits
        self.cuda = cuda
        self._slabs = {each.gpu.ordinal: each for each in slabs}
        self._wait_s = wait_s
        self._view = make_view
        self._waiting = 0
        self._closed = False
        self._abandoned: list[tuple[Account, Place]] = []
        self._changed = threading.Condition(threading.Lock())
        self._returns: Returns[tuple[Account, Place]] = Returns(self._changed, self._abandoned.append)
        self._ledger = Ledger(limits, self._free, clock)

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """The devices that have slabs."""
        return tuple(each.gpu for each in self._slabs.values())

    def stream(
        self, client: str, number: int, ordinal: int, check: Callable[[], None] | None = None
    ) -> ExportStream:
        """Begin a stream of batches to a client.

        Parameters
        ----------
        client : str
            Its id, which it has said on its lease connection.
        number : int
            By which it knows the stream.
        ordinal : int
            The device.
        check : callable, optional
            Called while waiting, at least every 0.1 s; raises to give up.

        Raises
        ------
        RequestError
            The client has no lease connection.
        """
        if ordinal not in self._slabs:
            raise RequestError(f"GPU {ordinal} exports nothing")
        with self._changed:
            account = self._ledger.account(client, number)
        return ExportStream(self, account, number, ordinal, check)

    def connected(self, client: str) -> None:
        """A client has opened its lease connection."""
        with self._changed:
            self._require_open()
            self._ledger.connect(client)

    def disconnected(self, client: str) -> None:
        """It is closed: everything of that client comes back."""
        with self._changed:
            self._ledger.disconnect(client)
            self._changed.notify_all()

    def released(self, client: str, leases: Sequence[int]) -> None:
        """A client gives leases back."""
        with self._changed:
            self._ledger.release(client, leases)
            self._changed.notify_all()

    def done(self, client: str, stream: int, held: Sequence[int]) -> None:
        """A client has stopped reading a stream, and holds only these leases of it."""
        with self._changed:
            self._ledger.done(client, stream, held)
            self._changed.notify_all()

    def tick(self) -> None:
        """Free what has rested long enough; called now and then."""
        with self._changed:
            self._settle_if_possible()
            self._ledger.tick()
            self._changed.notify_all()

    def statistics(self) -> ExportStatistics:
        """Return what is lent now."""
        with self._changed:
            self._settle_if_possible()
            leases, leased = self._ledger.leased()
            return ExportStatistics(
                clients=self._ledger.clients,
                leases=leases,
                leased_bytes=leased,
                quarantined_bytes=self._ledger.quarantined_bytes(),
                slab_bytes=sum(each.held_bytes for each in self._slabs.values()),
                free_bytes=sum(each.free_bytes for each in self._slabs.values()),
                waiting=self._waiting,
            )

    def close(self) -> None:
        """Lend nothing more; free the slabs if no client can have them mapped, else they go with the process.

        To be called before the lease socket is closed: after that it is not known who is there.
        """
        with self._changed:
            self._settle_if_possible()
            self._closed = True
            if self._ledger.clients == 0:
                for each in self._slabs.values():
                    each.close()

    def allocate(
        self, account: Account, number: int, ordinal: int, size_bytes: int, check: Callable[[], None] | None
    ) -> ExportRegion:
        """Return a region for a stream (which calls this); waits while the client holds too much."""
        deadline = time.monotonic() + self._wait_s
        while True:
            with self._changed:
                place = self._find(account, number, ordinal, size_bytes)
                if place is not None:
                    break
                self._waiting += 1
                try:
                    self._changed.wait(LOOK_S)
                finally:
                    self._waiting -= 1
            if check is not None:
                check()
            if time.monotonic() >= deadline:
                raise OverloadedError(
                    f"the client gave nothing back for {self._wait_s:g} s: it or others hold all the GPU memory "
                    "that is set aside for clients"
                )
        loan = Loan(account, place, self._returns)
        return ExportRegion(self._view(place.address, place.size_bytes, loan, ordinal), loan)

    def publish(
        self,
        region: ExportRegion,
        number: int,
        *,
        used_bytes: int,
        rows: int,
        columns: Sequence[ColumnExtents],
        cuda_stream: int,
    ) -> DeviceDescriptor:
        """Lend a finished region to its client (called through the stream)."""
        loan, place = region.loan, region.taken()
        with self.cuda.on(place.slab.gpu.ordinal):
            self.cuda.synchronize(cuda_stream)
        with self._changed:
            require_wanted(loan.account, number)
            kept = self._slabs[place.slab.gpu.ordinal].shrink(place, used_bytes)
            lease = self._ledger.grant(loan.account, number, kept, place.size_bytes)
            loan.place = None
            self._changed.notify_all()
        return DeviceDescriptor(
            gpu=place.slab.gpu.uuid,
            remote_handle=place.slab.handle,
            slab_bytes=place.slab.size_bytes,
            offset=place.offset,
            length=used_bytes,
            address=place.slab.address,
            rows=rows,
            columns=columns,
            client=loan.account.client,
            stream=number,
            lease=lease.id,
            expires=time.time() + self.limits.lease_s,
            free_data=self.socket,
        )

    def _find(self, account: Account, number: int, ordinal: int, size_bytes: int) -> Place | None:
        """Take a place, if the client may hold it and there is one; the lock is held."""
        self._require_open()
        require_wanted(account, number)
        self._settle()
        if not self._ledger.may_charge(account, rounded(size_bytes)):
            return None
        place = self._slabs[ordinal].take(size_bytes)
        if place is not None:
            self._ledger.charge(account, place)
        return place

    def _require_open(self) -> None:
        if self._closed:
            raise OverloadedError("the server is shutting down")

    def _settle(self) -> None:
        """Free the places of batches that were given up, once no kernel can be writing there; the lock is held."""
        self._returns.clear()
        for ordinal in {place.slab.gpu.ordinal for _, place in self._abandoned}:
            self.cuda.synchronize_device(ordinal)
        while self._abandoned:
            self._ledger.give_up(*self._abandoned.pop())

    def _settle_if_possible(self) -> None:
        try:
            self._settle()
        except CudaError as failure:  # producers get it; what was given up stays where it is
            log.warning("export regions not given back", error=str(failure))

    def _free(self, place: Place) -> None:
        self._slabs[place.slab.gpu.ordinal].give_back(place)


class ExportStream:
    """The batches of one read, on their way to one client.  Its end releases nothing: batches are read later.

    Made by `Exports.stream`.  Thread-safe.
    """

    def __init__(
        self, exports: Exports, account: Account, number: int, ordinal: int, check: Callable[[], None] | None
    ) -> None:
        self._exports = exports
        self._account = account
        self._number = number
        self._ordinal = ordinal
        self._check = check

    def allocate(self, size_bytes: int, /) -> ExportRegion:
        """Return a region of at least `size_bytes`, whose contents are arbitrary.

        Waits while the client, or all clients together, hold as much as they may.

        Raises
        ------
        CancelledError
            The client closed its lease connection, or is done with the stream.
        OverloadedError
            The region is larger than a slab or than what a client may hold, or nothing came back for long.
        """
        return self._exports.allocate(self._account, self._number, self._ordinal, size_bytes, self._check)

    def copy_of(self, address: int, size_bytes: int, *, cuda_stream: int) -> ExportRegion:
        """Allocate a region and queue the copy of device memory into it; for batches that were made elsewhere.

        Raises
        ------
        CancelledError, OverloadedError
            As for `allocate`.
        """
        region = self.allocate(size_bytes)
        self._exports.cuda.copy_on_device(region.address, address, size_bytes, cuda_stream)
        return region

    def publish(
        self,
        region: ExportRegion,
        *,
        used_bytes: int,
        rows: int,
        columns: Sequence[ColumnExtents],
        cuda_stream: int,
    ) -> DeviceDescriptor:
        """Lend a region to the client: wait for the stream that fills it, and describe it.

        Parameters
        ----------
        region : ExportRegion
            Not to be written any more.
        used_bytes : int
            How much of it the batch takes, from its start; the rest is free again.
        rows : int
        columns : sequence of ColumnExtents
        cuda_stream : int
            The only stream with work on the region under way.

        Raises
        ------
        CancelledError
            As for `allocate`; the region comes back when it is dropped.
        """
        return self._exports.publish(
            region, self._number, used_bytes=used_bytes, rows=rows, columns=columns, cuda_stream=cuda_stream
        )
