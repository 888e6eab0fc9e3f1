"""The lease socket: same-host clients say who they are and give leases back; their death is noticed by the kernel.

One thread serves all clients.  Nothing that a client sends can hold it up, and what it keeps for one is bounded.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import structlog

from kernels.errors import ConfigError, OverloadedError, RequestError
from transport.device import protocol
from transport.device.protocol import Done, Peer, RefusedError, Release, encode

log = structlog.get_logger("pgflight.transport")

TICK_S = 0.25
HELLO_S = 5.0
MAX_PATH_BYTES = 107
"""Of a Unix socket: sun_path holds one more."""
RECEIVE_BYTES = 64 << 10


class Lessor(Protocol):
    """Whose leases clients hold."""

    def connected(self, client: str) -> None:
        """A client is there; raises to refuse it."""

    def disconnected(self, client: str) -> None:
        """Its connection is closed."""

    def released(self, client: str, leases: tuple[int, ...]) -> None:
        """It gives leases back."""

    def done(self, client: str, stream: int, held: tuple[int, ...]) -> None:
        """It has stopped reading a stream."""

    def tick(self) -> None:
        """Some time has passed."""


@dataclass(eq=False, slots=True)
class Guest:
    """A connection."""

    socket: socket.socket
    peer: Peer
    due: float
    """When it must have said hello."""
    client: str | None = None
    deaf: bool = False
    """It broke the protocol after its hello: it is not listened to any more, but what it holds it may be reading,
    so that comes back only when it closes the connection."""
    heard: bytearray = field(default_factory=bytearray)


class LeaseSocket:
    """A Unix socket that only this user can connect to.

    Parameters
    ----------
    path : Path, optional
        Where; by default in a new directory of its own.

    Raises
    ------
    ConfigError
        The path is too long, taken, or cannot be used.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._directory: Path | None = None
        if path is None:
            runtime = os.environ.get("XDG_RUNTIME_DIR", "")
            within = runtime if Path(runtime).is_dir() and runtime else None
            self._directory = Path(tempfile.mkdtemp(prefix="pgflight-", dir=within))
            path = self._directory / "lease.sock"
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            require_free(path)
            self.socket.bind(os.fspath(path))
            path.chmod(0o600)  # before anyone can connect, for it does not listen yet
            self.socket.listen(128)
        except OSError as failure:
            self.close()
            raise ConfigError(f"lease socket: {path}: {failure.strerror}") from failure
        except ConfigError:
            self.close()
            raise
        self.socket.setblocking(False)

    def close(self) -> None:
        """Remove the socket."""
        if self.socket.fileno() >= 0 and self.socket.getsockname():
            self.path.unlink(missing_ok=True)
        self.socket.close()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)


class LeaseServer:
    """Serves the lease socket until closed.

    Parameters
    ----------
    listener : LeaseSocket
    lessor : Lessor
    max_connections : int
        Connections at once, those that have not said hello counted.
    hello_s : float
        How long a connection may take to say hello.
    credentials : callable
        Tells who is at the other end of a connection.
    """

    def __init__(
        self,
        listener: LeaseSocket,
        lessor: Lessor,
        *,
        max_connections: int = 128,
        hello_s: float = HELLO_S,
        credentials: Callable[[socket.socket], Peer] = protocol.peer_of,
    ) -> None:
        self._listener = listener
        self._lessor = lessor
        self._max_connections = max_connections
        self._hello_s = hello_s
        self._credentials = credentials
        self._home = protocol.home()
        self._guests: set[Guest] = set()
        self._next_tick = 0.0
        self._stop = threading.Event()
        self._wake, self._woken = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._listen(True)
        self._thread = threading.Thread(target=self._serve, name="pgflight-leases", daemon=True)
        self._thread.start()

    def offer(self) -> dict[str, Any]:
        """Return what a client needs to know before it asks for device batches."""
        return {
            "version": protocol.VERSION,
            "free_data": str(self._listener.path),
            "boot_id": self._home.boot_id,
            "pid_ns": self._home.pid_ns,
        }

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return len(self._guests)

    def close(self) -> None:
        """Close all connections, remove the socket, and end the thread."""
        if not self._stop.is_set():
            self._stop.set()
            self._wake.send(b"!")
        self._thread.join()
        self._wake.close()  # not by the thread: it may be over before it is woken
        self._woken.close()

    def _serve(self) -> None:
        try:
            while not self._stop.is_set():
                for key, _ in self._selector.select(TICK_S):
                    if key.fileobj is self._listener.socket:
                        self._accept()
                    elif isinstance(key.data, Guest):
                        self._hear(key.data)
                self._tick()
        finally:
            for guest in list(self._guests):
                self._part(guest)
            self._selector.close()
            self._listener.close()

    def _listen(self, wanted: bool) -> None:
        listening = self._listener.socket in self._selector.get_map()
        if wanted and not listening:
            self._selector.register(self._listener.socket, selectors.EVENT_READ)
        elif listening and not wanted:
            self._selector.unregister(self._listener.socket)

    def _accept(self) -> None:
        """Take a new connection, if it is this user's."""
        try:
            connection, _ = self._listener.socket.accept()
        except BlockingIOError:
            return
        except OSError as failure:  # no descriptors left, or the client is gone already
            log.warning("lease connection not accepted", error=failure.strerror)
            self._listen(False)  # until the next tick: the cause does not go away by asking again
            return
        connection.setblocking(False)
        peer = self._credentials(connection)
        guest = Guest(connection, peer, time.monotonic() + self._hello_s)
        self._guests.add(guest)
        self._selector.register(connection, selectors.EVENT_READ, guest)
        if peer.uid != os.geteuid():
            self._refuse(guest, RefusedError("user", "GPU memory is shared with the server's own user only"))
        elif len(self._guests) > self._max_connections:
            self._refuse(guest, RefusedError("busy", "there are too many lease connections"))

    def _hear(self, guest: Guest) -> None:
        """Take in what a client has sent, line by line."""
        try:
            received = guest.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if not received:
            self._part(guest)
            return
        if guest.deaf:
            return
        guest.heard += received
        try:
            *lines, rest = bytes(guest.heard).split(b"\n")
            for line in lines:
                self._obey(guest, line)
            protocol.require_short(rest)
            guest.heard = bytearray(rest)
        except RefusedError as failure:
            self._refuse(guest, failure)

    def _obey(self, guest: Guest, line: bytes) -> None:
        if guest.client is None:
            self._welcome(guest, line)
            return
        message = protocol.parse_message(line)
        match message:
            case Release(leases):
                self._lessor.released(guest.client, leases)
            case Done(stream, held):
                self._lessor.done(guest.client, stream, held)

    def _welcome(self, guest: Guest, line: bytes) -> None:
        hello = protocol.parse_hello(line)
        protocol.require_same_place(hello, guest.peer, self._home)
        try:
            self._lessor.connected(hello.client)
        except OverloadedError as failure:
            raise RefusedError("busy", str(failure)) from failure
        except RequestError as failure:
            raise RefusedError("protocol", str(failure)) from failure
        guest.client = hello.client
        log.info("lease client connected", client=hello.client, pid=guest.peer.pid)
        self._say(guest, {"welcome": protocol.VERSION})

    def _refuse(self, guest: Guest, failure: RefusedError) -> None:
        """Say why, and hang up; a client that holds leases is only not listened to any more."""
        log.info("lease client refused", reason=failure.reason, pid=guest.peer.pid, uid=guest.peer.uid)
        self._say(guest, {"refused": failure.reason, "message": str(failure)})
        guest.heard = bytearray()
        if guest.client is None:
            self._part(guest)
        else:
            guest.deaf = True

    def _say(self, guest: Guest, message: dict[str, object]) -> None:
        # A client that does not read what it is told, or is gone, is found out when it is listened to.
        with contextlib.suppress(OSError):
            guest.socket.send(encode(message))

    def _part(self, guest: Guest) -> None:
        if guest not in self._guests:
            return
        self._guests.remove(guest)
        self._selector.unregister(guest.socket)
        guest.socket.close()
        if guest.client is not None:
            self._lessor.disconnected(guest.client)
            log.info("lease client gone", client=guest.client)

    def _tick(self) -> None:
        now = time.monotonic()
        if now < self._next_tick:
            return
        self._next_tick = now + TICK_S
        self._listen(True)
        for guest in [guest for guest in self._guests if guest.client is None and guest.due < now]:
            self._refuse(guest, RefusedError("protocol", f"no hello in {self._hello_s:g} s"))
        self._lessor.tick()


def require_free(path: Path) -> None:
    """Remove the socket of a server that is gone; refuse a path that cannot be had.

    Raises
    ------
    ConfigError
        It is too long, something else is there, or a server that answers.
    """
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise ConfigError(f"lease socket: the path {path} is longer than {MAX_PATH_BYTES} bytes")
    if not path.exists():
        return
    if not path.is_socket():
        raise ConfigError(f"lease socket: {path} is something else")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
    raise ConfigError(f"lease socket: another server listens on {path}")
