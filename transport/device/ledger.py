"""Who holds which region, and when it may be used again: the rules of leases, without sockets, threads or CUDA.

::

    in the making ──grant──▶ leased ──expiry──▶ quarantined
          │                    │                    │
          └─ given back        └─ release, done,    └─ release or done; or the connection is closed and
                                  connection closed    the quarantine over

A region whose lease has expired is never free while its client is connected: an expiry cannot revoke a mapping.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, count

from kernels.errors import CancelledError, ConfigError, OverloadedError, RequestError
from transport.device.slabs import Place

REMEMBERED_STREAMS = 1024
"""How many streams that it is done with are remembered per client; older ones have long ended."""
MOST_LEASES = 32768
"""Their numbers fit into one message (MAX_LINE_BYTES of protocol.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseLimits:
    """What clients may hold.

    Parameters
    ----------
    lease_s : float
        How long a lease is good for.
    quarantine_s : float
        How long the region of an expired lease rests after that, if its client is gone.
    client_bytes, client_leases : int
        What one client may hold, regions in the making and expired leases counted.
    clients : int
        Clients at once.

    Raises
    ------
    ConfigError
        A limit is not positive, or more leases than a client can name in one message.
    """

    lease_s: float = 600.0
    quarantine_s: float = 30.0
    client_bytes: int = 1 << 30
    client_leases: int = 1024
    clients: int = 64

    def __post_init__(self) -> None:
        if min(self.lease_s, self.quarantine_s, self.client_bytes, self.client_leases, self.clients) <= 0:
            raise ConfigError(f"leases: limits must be positive ({self})")
        if self.client_leases > MOST_LEASES:
            raise ConfigError(f"leases: a client can hold {MOST_LEASES} at most, not {self.client_leases}")


@dataclass(frozen=True, slots=True, eq=False)
class Lease:
    """A client's right to read a region."""

    id: int
    stream: int
    place: Place
    expires: float


@dataclass(slots=True, eq=False)
class Account:
    """What one client holds."""

    client: str
    size_bytes: int = 0
    pending: int = 0
    """Regions in the making."""
    leases: dict[int, Lease] = field(default_factory=dict)
    done: deque[int] = field(default_factory=lambda: deque(maxlen=REMEMBERED_STREAMS))
    """Streams that the client reads no more."""
    connected: bool = True


class Ledger:
    """The accounts of all clients.  Not thread-safe.

    Parameters
    ----------
    limits : LeaseLimits
    free : callable
        Takes a place that nobody looks at any more.
    clock : callable
        Returns the time in seconds.
    """

    def __init__(self, limits: LeaseLimits, free: Callable[[Place], None], clock: Callable[[], float]) -> None:
        self.limits = limits
        self._free = free
        self._clock = clock
        self._accounts: dict[str, Account] = {}
        self._ids = count(1)
        self._resting: list[tuple[float, int, Place]] = []
        """Regions of expired leases whose clients are gone: a heap by the time their quarantine is over."""

    def connect(self, client: str) -> None:
        """Open an account.

        Raises
        ------
        RequestError
            The client is there already.
        OverloadedError
            There are too many.
        """
        if client in self._accounts:
            raise RequestError("another connection uses this client id")
        if len(self._accounts) >= self.limits.clients:
            raise OverloadedError(f"{self.limits.clients} clients hold lease connections, as many as are allowed")
        self._accounts[client] = Account(client)

    def disconnect(self, client: str) -> None:
        """Close an account: its regions are free, those of expired leases after their quarantine."""
        account = self._accounts.pop(client)
        account.connected = False
        now = self._clock()
        for lease in account.leases.values():
            if now < lease.expires:
                self._free(lease.place)
            else:
                heapq.heappush(self._resting, (lease.expires + self.limits.quarantine_s, lease.id, lease.place))
        account.leases.clear()
        self.tick()

    def account(self, client: str, stream: int) -> Account:
        """Return the account to which a stream's regions are charged.

        Raises
        ------
        RequestError
            The client has no lease connection.
        CancelledError
            The client is done with the stream.
        """
        account = self._accounts.get(client)
        if account is None:
            raise RequestError(
                "output=cuda-ipc needs the client's lease connection: it must run on the server's host, as the "
                "server's user, and keep the connection open"
            )
        require_wanted(account, stream)
        return account

    def may_charge(self, account: Account, size_bytes: int) -> bool:
        """Tell whether a client may hold one more region of that size.

        Raises
        ------
        OverloadedError
            It never may.
        """
        if size_bytes > self.limits.client_bytes:
            raise OverloadedError(f"a batch of {size_bytes} bytes exceeds what one client may hold")
        held = len(account.leases) + account.pending
        return held < self.limits.client_leases and account.size_bytes + size_bytes <= self.limits.client_bytes

    def charge(self, account: Account, place: Place) -> None:
        """Count a region in the making."""
        account.size_bytes += place.size_bytes
        account.pending += 1

    def give_up(self, account: Account, place: Place) -> None:
        """Uncount a region in the making, and free it."""
        account.size_bytes -= place.size_bytes
        account.pending -= 1
        self._free(place)

    def grant(self, account: Account, stream: int, place: Place, charged_bytes: int) -> Lease:
        """Turn a region in the making, perhaps shrunk since it was charged, into a lease.

        Raises
        ------
        CancelledError
            The client is gone, or done with the stream; the region is still in the making.
        """
        require_wanted(account, stream)
        lease = Lease(next(self._ids), stream, place, self._clock() + self.limits.lease_s)
        account.pending -= 1
        account.size_bytes += place.size_bytes - charged_bytes
        account.leases[lease.id] = lease
        return lease

    def release(self, client: str, leases: Iterable[int]) -> None:
        """Free the regions of leases; those that are not the client's, or not any more, are passed over."""
        account = self._accounts[client]
        for number in leases:
            lease = account.leases.pop(number, None)
            if lease is not None:
                account.size_bytes -= lease.place.size_bytes
                self._free(lease.place)

    def done(self, client: str, stream: int, held: Iterable[int]) -> None:
        """Grant no more leases of a stream, and release those that the client does not hold: they were under way
        when it left.
        """
        account = self._accounts[client]
        account.done.append(stream)
        lost = {number for number, lease in account.leases.items() if lease.stream == stream}
        self.release(client, lost.difference(held))

    def tick(self) -> None:
        """Free the regions whose quarantine is over."""
        now = self._clock()
        while self._resting and self._resting[0][0] <= now:
            self._free(heapq.heappop(self._resting)[2])

    @property
    def clients(self) -> int:
        """Clients that are connected."""
        return len(self._accounts)

    def leased(self) -> tuple[int, int]:
        """Return the number of leases of connected clients, and their bytes."""
        sizes = [lease.place.size_bytes for lease in self._leases()]
        return len(sizes), sum(sizes)

    def quarantined_bytes(self) -> int:
        """Return the bytes of expired leases, of clients here and gone."""
        now = self._clock()
        here = sum(lease.place.size_bytes for lease in self._leases() if lease.expires <= now)
        return here + sum(place.size_bytes for _, _, place in self._resting)

    def _leases(self) -> Iterator[Lease]:
        return chain.from_iterable(account.leases.values() for account in self._accounts.values())


def require_wanted(account: Account, stream: int) -> None:
    """Refuse to go on for a client that is gone.

    Raises
    ------
    CancelledError
        The connection is closed, or the client is done with the stream.
    """
    if not account.connected:
        raise CancelledError("the client closed its lease connection")
    if stream in account.done:
        raise CancelledError("the client stopped reading")
