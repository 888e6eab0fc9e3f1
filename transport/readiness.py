"""Waiting for a socket; by poll, for select knows no descriptor above 1023."""

from __future__ import annotations

import select


def wait_for(descriptor: int, seconds: float, *, read: bool = True, write: bool = False) -> bool:
    """Wait until a descriptor can be read or written, as asked; return whether it can be read, or has failed."""
    poll = select.poll()
    poll.register(descriptor, (select.POLLIN if read else 0) | (select.POLLOUT if write else 0))
    return any(events & ~select.POLLOUT for _, events in poll.poll(seconds * 1000))
