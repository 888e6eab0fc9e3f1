"""Tickets: whole, mine, and in time, or refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flight_server.options import ReadOptions
from flight_server.request import ReadRequest
from flight_server.tickets import MAX_TICKET_BYTES, PREFIX, TicketSigner
from kernels.errors import TicketError

REQUEST = ReadRequest(
    table=("s", "t"),
    columns=("a",),
    where="a > 1",
    limit=5,
    options=ReadOptions(profile="plain", batch_bytes=65536),
)


def test_round_trip() -> None:
    signer = TicketSigner(b"k" * 32)
    opened = signer.open(signer.seal(REQUEST, "me", "digest"), "me")
    assert (opened.request, opened.identity, opened.schema_digest) == (REQUEST, "me", "digest")


def test_replicas_share_a_key() -> None:
    sealed = TicketSigner(b"shared").seal(ReadRequest(sql="select 1", params=("1", None)), "me", "d")
    assert TicketSigner(b"shared").open(sealed, "me").request.params == ("1", None)


@pytest.mark.parametrize(
    ("signer", "identity", "why"),
    [
        (TicketSigner(b"other"), "me", "not issued"),
        (TicketSigner(b"k", lifetime_s=-1), "me", "expired"),
        (TicketSigner(b"k"), "you", "somebody else"),
    ],
)
def test_refusals(signer: TicketSigner, identity: str, why: str) -> None:
    sealed = TicketSigner(b"k", signer.lifetime_s).seal(REQUEST, "me", "d")
    with pytest.raises(TicketError, match=why):
        signer.open(sealed, identity)


def test_another_version_is_refused() -> None:
    signer = TicketSigner(b"k")
    body = b"bm90IGpzb24="
    with pytest.raises(TicketError, match="another version"):
        signer.open(PREFIX + body + b"." + signer._sign(body), "me")


def test_a_huge_ticket_is_refused() -> None:
    with pytest.raises(TicketError, match="bytes"):
        TicketSigner(b"k").open(PREFIX + b"x" * MAX_TICKET_BYTES, "me")


@given(st.data())
def test_any_changed_byte_is_noticed(data: st.DataObject) -> None:
    signer = TicketSigner(b"k")
    sealed = bytearray(signer.seal(REQUEST, "me", "d"))
    at = data.draw(st.integers(len(PREFIX), len(sealed) - 1))
    sealed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(TicketError):
        signer.open(bytes(sealed), "me")
