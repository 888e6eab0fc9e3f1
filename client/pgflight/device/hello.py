"""Opening a lease connection: who is at the other end, where this process runs, and why it may not be."""

import contextlib
import json
import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgflight.device.errors import (
    BY_REASON,
    LeaseError,
    OtherHostError,
    OtherNamespaceError,
    OtherUserError,
    VersionError,
)

VERSION = 1
_MAX_ANSWER_BYTES = 64 << 10


@dataclass(frozen=True)
class Offer:
    """What the server says of its lease socket, in the ``app_metadata`` of the FlightInfo."""

    free_data: str
    boot_id: str
    pid_ns: str

    @classmethod
    def parse(cls, said: Mapping[str, Any]) -> "Offer":
        """Read an offer.

        Raises
        ------
        VersionError
            It is of another version.
        LeaseError
            It is none.
        """
        if said.get("version") != VERSION:
            raise VersionError(
                f"the server's leases have version {said.get('version')!r}, this client's {VERSION}"
            )
        values = [said.get(name) for name in ("free_data", "boot_id", "pid_ns")]
        if not all(isinstance(value, str) for value in values):
            raise LeaseError("the server's offer of device batches is incomplete")
        return cls(*(str(value) for value in values))


@dataclass(frozen=True)
class Welcome:
    """An open lease connection, and the process at its other end."""

    socket: socket.socket
    pid: int


def require_near(offer: Offer) -> None:
    """Refuse a server whose memory cannot be mapped here.

    Raises
    ------
    OtherHostError
        It runs on another host, or (``OtherNamespaceError``) in another PID namespace.
    """
    if offer.boot_id != boot_id():
        raise OtherHostError("the server runs on another host: GPU memory is shared within one host only")
    if offer.pid_ns != pid_namespace():
        raise OtherNamespaceError(
            "the server runs in another PID namespace (container), which CUDA IPC does not cross: "
            "run both in one, such as with --pid=host --ipc=host"
        )


def open_connection(offer: Offer, client: str, timeout_s: float) -> Welcome:
    """Connect to a lease socket and introduce this client.

    Raises
    ------
    DeviceError
        Of the class that says why not.
    """
    require_near(offer)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _limit(connection, timeout_s)
        _dial(connection, offer.free_data)
        pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid != os.geteuid():
            raise OtherUserError(f"the server runs as user {uid}, this process as {os.geteuid()}")  # noqa: TRY301
        _introduce(connection, client)
        _limit(connection, 0)
    except BaseException:
        connection.close()
        raise
    return Welcome(connection, pid)


def boot_id() -> str:
    """Return what names this host until it is started again."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def pid_namespace() -> str:
    """Return what names the PID namespace of this process."""
    return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - not a path


def encode(message: Mapping[str, object]) -> bytes:
    """Return a message as a line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def _limit(connection: socket.socket, seconds: float) -> None:
    """Limit how long a call may take; 0 lifts the limit.

    Python's own time-outs do not do: with them, connecting fails at once where others are connecting too.
    """
    whole = int(seconds)
    packed = struct.pack("ll", whole, int((seconds - whole) * 1e6))
    for direction in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connection.setsockopt(socket.SOL_SOCKET, direction, packed)


def _dial(connection: socket.socket, path: str) -> None:
    try:
        connection.connect(path)
    except FileNotFoundError:
        raise OtherHostError(
            f"the lease socket {path} is not here: does the server see another file system?"
        ) from None
    except PermissionError:
        raise OtherUserError(
            f"the lease socket {path} is closed to this process: the server is another user's"
        ) from None
    except OSError as failure:
        raise LeaseError(f"the lease socket {path} does not answer: {failure.strerror or failure}") from None


def _introduce(connection: socket.socket, client: str) -> None:
    hello = {
        "hello": VERSION,
        "client": client,
        "pid": os.getpid(),
        "boot_id": boot_id(),
        "pid_ns": pid_namespace(),
    }
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has refused us already: read why
        connection.sendall(encode(hello))
    answer = _answer(connection)
    if "refused" in answer:
        kind = BY_REASON.get(str(answer["refused"]), LeaseError)
        raise kind(str(answer.get("message", answer["refused"])))
    if answer.get("welcome") != VERSION:
        raise VersionError(f"the server's leases have version {answer.get('welcome')!r}, ours {VERSION}")


def _answer(connection: socket.socket) -> dict[str, Any]:
    heard = b""
    try:
        while not heard.endswith(b"\n"):
            part = connection.recv(4096)
            heard += part
            if not part or len(heard) > _MAX_ANSWER_BYTES:
                raise LeaseError("the server closed the lease connection")
        answer = json.loads(heard)
    except OSError as failure:
        raise LeaseError(f"the lease socket does not answer: {failure.strerror or failure}") from None
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise LeaseError("the lease socket answers with something else")
    return answer
