"""What can go wrong: each fault is done to a world, and says which outcomes it excuses."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from tests.torture.world import World

STOPPED_S = 0.4

Inject = Callable[[World, psutil.Process], None]
"""Does it, to a world and the client's process."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes
    ----------
    name
    inject
    may_change_values
        A byte that changes on the way to the server is only noticed where it breaks the structure; TLS is the cure.
    kills_client
    """

    name: str
    inject: Inject
    may_change_values: bool = False
    kills_client: bool = False


def kill_backend(world: World, _client: psutil.Process) -> None:
    for process in world.streaming()[:1]:
        process.kill()


def stop_backend(world: World, _client: psutil.Process) -> None:
    for process in world.streaming()[:1]:
        stop(process)


def stop(process: psutil.Process) -> None:
    """Stop a process, and let it go on a little later."""
    process.suspend()

    def go_on() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()

    threading.Timer(STOPPED_S, go_on).start()


def delay(link_of: Callable[[World], object], seconds: float) -> Inject:
    def inject(world: World, _client: psutil.Process) -> None:
        link_of(world).delay_s = seconds  # type: ignore[attr-defined]

    return inject


FAULTS = (
    Fault("backend killed", kill_backend),
    Fault("backend stopped", stop_backend),
    Fault("postmaster killed", lambda world, _client: world.postgres.kill()),
    Fault("server killed", lambda world, _client: world.server.signal(signal.SIGKILL)),
    Fault("server stopped", lambda world, _client: stop(world.server.process)),
    Fault("client killed", lambda _world, client: client.kill(), kills_client=True),
    Fault("client stopped", lambda _world, client: stop(client)),
    Fault("PostgreSQL cut off", lambda world, _client: world.link.cut()),
    Fault("PostgreSQL half closed", lambda world, _client: world.link.half_close()),
    Fault("PostgreSQL slow", delay(lambda world: world.link, 0.002)),
    Fault("a byte of PostgreSQL's changed", lambda world, _client: world.link.corrupt(), may_change_values=True),
    Fault("client cut off", lambda world, _client: world.front.cut()),
    Fault("client half closed", lambda world, _client: world.front.half_close()),
    Fault("client slow", delay(lambda world: world.front, 0.002)),
)
