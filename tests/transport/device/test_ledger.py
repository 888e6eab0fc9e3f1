"""Leases: whatever clients do, a region is free exactly once, and never while its reader may look."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, precondition, rule

from kernels.errors import CancelledError, ConfigError, OverloadedError, RequestError
from transport.device.cuda import Gpu
from transport.device.freelist import FreeList
from transport.device.ledger import MOST_LEASES, REMEMBERED_STREAMS, Account, Lease, LeaseLimits, Ledger
from transport.device.protocol import MAX_LINE_BYTES, Done, encode, parse_message
from transport.device.slabs import Place, Slab

SLAB = Slab(Gpu(0, "GPU-0", "none", 0), 0, 1 << 40, b"", FreeList(1 << 40))
LIMITS = LeaseLimits(lease_s=10, quarantine_s=5, client_bytes=100, client_leases=4, clients=3)
NAMES = ("a", "b", "c", "d")


class Leases(RuleBasedStateMachine):
    """Clients come, hold, give back, stop reading, leave; time passes."""

    granted = Bundle("granted")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.freed: list[Place] = []
        self.ledger = Ledger(LIMITS, self.freed.append, lambda: self.now)
        self.places = 0
        self.accounts: dict[str, Account] = {}
        self.holds: dict[Place, tuple[str, Lease]] = {}
        """What readers may look at: leased, and neither given back nor lost."""
        self.making: list[tuple[Account, Place, int]] = []
        self.resting: dict[Place, float] = {}
        """Expired when their client left, and until when they must rest."""

    @rule(name=st.sampled_from(NAMES))
    def connect(self, name: str) -> None:
        if name in self.accounts:
            with pytest.raises(RequestError):
                self.ledger.connect(name)
        elif len(self.accounts) == LIMITS.clients:
            with pytest.raises(OverloadedError):
                self.ledger.connect(name)
        else:
            self.ledger.connect(name)
            self.accounts[name] = self.ledger.account(name, 0)

    @precondition(lambda self: self.accounts)
    @rule(data=st.data(), size=st.integers(1, 60), stream=st.integers(1, 3))
    def make(self, data: st.DataObject, size: int, stream: int) -> None:
        account = self.accounts[data.draw(st.sampled_from(sorted(self.accounts)))]
        if not self.ledger.may_charge(account, size):
            held = [place for place, (owner, _) in self.holds.items() if owner == account.client]
            making = [place for maker, place, _ in self.making if maker is account]
            assert len(held) + len(making) == 4 or sum(p.size_bytes for p in held + making) + size > 100
            return
        self.places += 1
        place = Place(SLAB, 1000 * self.places, size)
        self.ledger.charge(account, place)
        self.making.append((account, place, stream))

    @precondition(lambda self: self.making)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        account, place, _ = self.making.pop(data.draw(st.integers(0, len(self.making) - 1)))
        before = len(self.freed)
        self.ledger.give_up(account, place)
        assert self.freed[before:] == [place]

    @precondition(lambda self: self.making)
    @rule(target=granted, data=st.data())
    def grant(self, data: st.DataObject) -> object:
        account, place, stream = self.making.pop(data.draw(st.integers(0, len(self.making) - 1)))
        shrunk = Place(SLAB, place.offset, data.draw(st.integers(1, place.size_bytes)))
        if not account.connected or stream in account.done:
            with pytest.raises(CancelledError):
                self.ledger.grant(account, stream, shrunk, place.size_bytes)
            self.ledger.give_up(account, place)
            return multiple()
        lease = self.ledger.grant(account, stream, shrunk, place.size_bytes)
        self.holds[shrunk] = (account.client, lease)
        return lease

    @precondition(lambda self: self.accounts)
    @rule(data=st.data(), leases=st.lists(granted, max_size=3))
    def release(self, data: st.DataObject, leases: list[Lease]) -> None:
        """Of one's own leases, of others', of old ones."""
        name = data.draw(st.sampled_from(sorted(self.accounts)))
        due = {place for place, (owner, lease) in self.holds.items() if owner == name and lease in leases}
        before = len(self.freed)
        self.ledger.release(name, [lease.id for lease in leases] + [10**6])
        assert set(self.freed[before:]) == due
        for place in due:
            del self.holds[place]

    @precondition(lambda self: self.accounts)
    @rule(data=st.data(), stream=st.integers(1, 3), held=st.lists(granted, max_size=3))
    def done(self, data: st.DataObject, stream: int, held: list[Lease]) -> None:
        name = data.draw(st.sampled_from(sorted(self.accounts)))
        due = {
            place
            for place, (owner, lease) in self.holds.items()
            if owner == name and lease.stream == stream and lease not in held
        }
        before = len(self.freed)
        self.ledger.done(name, stream, [lease.id for lease in held])
        assert set(self.freed[before:]) == due
        for place in due:
            del self.holds[place]
        with pytest.raises(CancelledError):
            self.ledger.account(name, stream)

    @precondition(lambda self: self.accounts)
    @rule(data=st.data())
    def disconnect(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.accounts)))
        mine = {place: lease for place, (owner, lease) in self.holds.items() if owner == name}
        before = len(self.freed)
        self.ledger.disconnect(name)
        rest = {place: lease.expires + 5 for place, lease in mine.items() if lease.expires <= self.now}
        freed = (mine.keys() - rest.keys()) | {place for place, until in rest.items() if until <= self.now}
        assert set(self.freed[before:]) >= freed
        self.resting |= {place: until for place, until in rest.items() if place not in freed}
        for place in mine:
            del self.holds[place]
        del self.accounts[name]
        with pytest.raises(RequestError, match="lease connection"):
            self.ledger.account(name, 1)

    @rule(seconds=st.floats(0.1, 12))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        before = len(self.freed)
        self.ledger.tick()
        due = {place for place, until in self.resting.items() if until <= self.now}
        assert set(self.freed[before:]) == due - set(self.freed[:before])
        for place in due:
            del self.resting[place]

    @invariant()
    def nothing_is_free_twice(self) -> None:
        assert len(set(self.freed)) == len(self.freed)

    @invariant()
    def nothing_is_free_that_is_read(self) -> None:
        free = set(self.freed)
        assert not free & self.holds.keys()
        assert not {place for place in free & self.resting.keys() if self.resting[place] > self.now}

    @invariant()
    def the_sums_hold(self) -> None:
        leases, size = self.ledger.leased()
        assert leases == len(self.holds)
        assert size == sum(place.size_bytes for place in self.holds)
        for name, account in self.accounts.items():
            making = sum(place.size_bytes for maker, place, _ in self.making if maker is account)
            held = sum(place.size_bytes for place, (owner, _) in self.holds.items() if owner == name)
            assert account.size_bytes == making + held <= LIMITS.client_bytes


TestLeases = Leases.TestCase
TestLeases.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)


def ledger(**limits: float) -> tuple[Ledger, list[Place], list[float]]:
    freed: list[Place] = []
    now = [0.0]
    return Ledger(LeaseLimits(**limits), freed.append, lambda: now[0]), freed, now


def lend(book: Ledger, name: str, stream: int = 1, offset: int = 0) -> Lease:
    account = book.account(name, stream)
    place = Place(SLAB, offset, 8)
    book.charge(account, place)
    return book.grant(account, stream, place, 8)


def test_an_expired_lease_of_a_client_that_is_there_is_never_free() -> None:
    book, freed, now = ledger(lease_s=10, quarantine_s=5)
    book.connect("a")
    lease = lend(book, "a")
    now[0] = 1e9
    book.tick()
    assert freed == []
    assert book.quarantined_bytes() == 8
    book.release("a", [lease.id])
    assert freed == [lease.place]
    assert book.quarantined_bytes() == 0


def test_the_region_of_an_expired_lease_rests_after_its_client_left() -> None:
    book, freed, now = ledger(lease_s=10, quarantine_s=5)
    book.connect("a")
    expired = lend(book, "a")
    now[0] = 11
    fresh = lend(book, "a", offset=8)
    book.disconnect("a")
    assert freed == [fresh.place]
    now[0] = 14.9
    book.tick()
    assert freed == [fresh.place]
    assert book.quarantined_bytes() == 8
    now[0] = 15
    book.tick()
    assert freed == [fresh.place, expired.place]


def test_streams_that_a_client_is_done_with_are_not_remembered_for_ever() -> None:
    book, _, _ = ledger()
    book.connect("a")
    for stream in range(10 * REMEMBERED_STREAMS):
        book.done("a", stream, [])
    assert len(book.account("a", 10**9).done) == REMEMBERED_STREAMS


def test_more_than_one_client_may_ever_hold() -> None:
    book, _, _ = ledger(client_bytes=100)
    book.connect("a")
    with pytest.raises(OverloadedError, match="exceeds what one client may hold"):
        book.may_charge(book.account("a", 1), 101)


@pytest.mark.parametrize(
    "limits", [{"lease_s": 0}, {"client_bytes": -1}, {"clients": 0}, {"client_leases": MOST_LEASES + 1}]
)
def test_limits_that_make_no_sense(limits: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="leases"):
        LeaseLimits(**limits)


def test_all_leases_of_a_client_can_be_named_in_one_message() -> None:
    message = Done(10**18, tuple(range(10**18, 10**18 + MOST_LEASES)))
    line = encode({"done": message.stream, "held": message.held})
    assert len(line) <= MAX_LINE_BYTES
    assert parse_message(line) == message
