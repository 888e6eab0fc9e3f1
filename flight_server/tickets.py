"""Tickets: opaque, versioned, expiring, signed; all that any replica with the same key needs to serve them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from flight_server.reading.snapshots import Lease, Share
from flight_server.request import MAX_REQUEST_BYTES, ReadRequest, parse_json
from kernels.errors import RequestError, TicketError
from transport.partition import Leaf, PageRange
from transport.snapshot import Snapshot

PREFIX = b"pgf1."
"""Version of the format; no SQL and no JSON begins like this."""
KEY_BYTES = 32
MAX_TICKET_BYTES = 2 * MAX_REQUEST_BYTES
"""Longest ticket that is looked at: a request grows by a third in base64."""

MAX_REMEMBERED = 1024
MAX_REMEMBERED_BYTES = 4 << 10
"""Of a ticket that is not taken apart again when it comes back."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a ticket says.

    Parameters
    ----------
    request : ReadRequest
    identity : str
        Whom it was issued to.
    expires_at : float
        Unix time, seconds.
    schema_digest : str
        Digest of the schema that was promised.
    share : Share or None
        What to read of it, and under which snapshot; None for all.
    """

    request: ReadRequest
    identity: str
    expires_at: float
    schema_digest: str
    share: Share | None = None


class TicketSigner:
    """Seals and opens tickets with one key.

    Parameters
    ----------
    key : bytes or None
        Shared by replicas; None for a random one that lives as long as the process.
    lifetime_s : float
        How long a ticket is good for.
    """

    def __init__(self, key: bytes | None = None, lifetime_s: float = 900.0) -> None:
        self._key = key or secrets.token_bytes(KEY_BYTES)
        self.lifetime_s = lifetime_s
        self._remembered = lru_cache(MAX_REMEMBERED)(self._proven)

    def seal(
        self,
        request: ReadRequest,
        identity: str,
        schema_digest: str,
        *,
        share: Share | None = None,
        lifetime_s: float | None = None,
    ) -> bytes:
        """Return the bytes of a fresh ticket; `lifetime_s` where it differs from the signer's."""
        parts = {
            "r": request.to_json(),
            "i": identity,
            "e": round(time.time() + (self.lifetime_s if lifetime_s is None else lifetime_s), 3),
            "s": schema_digest,
        }
        if share is not None:
            parts |= {"l": _lease_json(share.lease), "p": [_range_json(part) for part in share.ranges]}
        body = base64.urlsafe_b64encode(json.dumps(parts, separators=(",", ":")).encode())
        return PREFIX + body + b"." + self._sign(body)

    def open(self, raw: bytes, identity: str) -> Ticket:
        """Check a ticket and return what it says.

        Raises
        ------
        TicketError
            It is malformed, forged, expired or another's.
        """
        if len(raw) > MAX_TICKET_BYTES:
            raise TicketError(f"the ticket has {len(raw)} bytes; at most {MAX_TICKET_BYTES} are accepted")
        ticket = self._remembered(raw) if len(raw) <= MAX_REMEMBERED_BYTES else self._proven(raw)
        if ticket.expires_at < time.time():
            raise TicketError("the ticket has expired: ask for a new one with GetFlightInfo")
        if ticket.identity != identity:
            raise TicketError("the ticket was issued to somebody else")
        return ticket

    def _proven(self, raw: bytes) -> Ticket:
        """Return what a ticket says, if this key signed it: the same bytes always say the same."""
        body, _, signature = raw.removeprefix(PREFIX).rpartition(b".")
        if not hmac.compare_digest(signature, self._sign(body)):
            raise TicketError("the ticket was not issued by this server, or was changed")
        return _read(body)

    def _sign(self, body: bytes) -> bytes:
        return base64.urlsafe_b64encode(hmac.new(self._key, PREFIX + body, hashlib.sha256).digest())


def _read(body: bytes) -> Ticket:
    """Parse a body whose signature is right; an older version of this server may have made it."""
    try:
        parts: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body))
        share = None
        if "l" in parts:
            share = Share(_lease(parts["l"]), tuple(_range(*part) for part in parts["p"]))
        return Ticket(parse_json(parts["r"], {}), parts["i"], parts["e"], parts["s"], share)
    except (binascii.Error, ValueError, KeyError, TypeError, RequestError) as failure:
        raise TicketError("the ticket is of another version: ask for a new one with GetFlightInfo") from failure


def _lease_json(lease: Lease) -> list[str]:
    return [lease.id, lease.snapshot.name, lease.snapshot.content, lease.snapshot.server]


def _lease(parts: list[str]) -> Lease:
    return Lease(parts[0], Snapshot(*parts[1:]))


def _range_json(part: PageRange) -> list[Any]:
    return [part.leaf.oid, part.leaf.schema, part.leaf.name, part.leaf.pages, part.begin, part.end]


def _range(oid: int, schema: str, name: str, pages: int, begin: int, end: int | None) -> PageRange:
    return PageRange(Leaf(oid, schema, name, pages), begin, end)
