"""What is said on a lease connection: one JSON object a line, and how either side proves where it runs.

::

    client  {"hello": 1, "client": "<32 hex digits>", "pid": …, "boot_id": …, "pid_ns": …}
    server  {"welcome": 1}                              or {"refused": "<reason>", "message": "…"} and the end
    client  {"release": [17, 18]}                       leases it does not need any more
    client  {"done": 3, "held": [19]}                   a stream it reads no more, and the leases of it that it has
"""

from __future__ import annotations

import json
import os
import re
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from kernels.errors import RequestError

VERSION: Final = 1
MAX_LINE_BYTES: Final = 1 << 20
MAX_NUMBER: Final = 2**63 - 1

CLIENT_ID = re.compile("[0-9a-f]{32}")
READER = re.compile(r"([0-9a-f]{32})\.([0-9]{1,18})")

Reason = Literal["version", "host", "user", "namespace", "process", "busy", "protocol"]


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a Unix socket, as the kernel says."""

    pid: int
    uid: int


@dataclass(frozen=True, slots=True)
class Home:
    """Where a process runs: the host's boot and the PID namespace, which CUDA IPC does not cross."""

    boot_id: str
    pid_ns: str


@dataclass(frozen=True, slots=True)
class Hello:
    """A client introduces itself."""

    client: str
    pid: int
    home: Home


@dataclass(frozen=True, slots=True)
class Release:
    """Leases that are not needed any more."""

    leases: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """A stream that is not read any more, and what of it is in use."""

    stream: int
    held: tuple[int, ...]


class RefusedError(RequestError):
    """A client that must not have leases; carries the reason in one word."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason


def peer_of(connection: socket.socket) -> Peer:
    """Return who connected, or who listens."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", packed)
    return Peer(pid, uid)


def home() -> Home:
    """Return where this process runs."""
    return Home(
        Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip(),
        os.readlink("/proc/self/ns/pid"),  # noqa: PTH115 (Path.readlink would normalise the text)
    )


def parse_reader(text: str) -> tuple[str, int]:
    """Read ``<client>.<stream>``, by which a call names the lease connection and its own number on it.

    Raises
    ------
    RequestError
        It is something else.
    """
    match = READER.fullmatch(text)
    if match is None:
        raise RequestError("the reader of device batches is named <32 hex digits>.<number>")
    return match[1], int(match[2])


def parse_hello(line: bytes) -> Hello:
    """Read the first line.

    Raises
    ------
    RefusedError
        It is not a hello, or of another version.
    """
    said = _object(line)
    if "hello" not in said:
        raise RefusedError("protocol", "a lease connection begins with a hello")
    if said["hello"] != VERSION or isinstance(said["hello"], bool):
        raise RefusedError("version", f"this server speaks version {VERSION} of the lease protocol")
    client, boot_id, pid_ns = (_text(said, name) for name in ("client", "boot_id", "pid_ns"))
    if CLIENT_ID.fullmatch(client) is None:
        raise RefusedError("protocol", "a client id has 32 hex digits")
    return Hello(client, _number(said.get("pid")), Home(boot_id, pid_ns))


def parse_message(line: bytes) -> Release | Done:
    """Read a later line.

    Raises
    ------
    RefusedError
        It is none of the messages.
    """
    said = _object(line)
    if "release" in said:
        return Release(_numbers(said["release"]))
    if "done" in said:
        return Done(_number(said["done"]), _numbers(said.get("held")))
    raise RefusedError("protocol", "an unknown message")


def require_short(line: bytes) -> None:
    """Refuse a line that is longer than any message.

    Raises
    ------
    RefusedError
        It is.
    """
    if len(line) > MAX_LINE_BYTES:
        raise RefusedError("protocol", f"a line of more than {MAX_LINE_BYTES} bytes")


def require_same_place(hello: Hello, peer: Peer, here: Home) -> None:
    """Refuse a client that could not map our memory.

    Raises
    ------
    RefusedError
        It runs on another host, or in another PID namespace.
    """
    if hello.home.boot_id != here.boot_id:
        raise RefusedError("host", "the client runs on another host: GPU memory is shared within one host only")
    if hello.home.pid_ns != here.pid_ns or hello.pid != peer.pid:
        raise RefusedError(
            "namespace", "the client runs in another PID namespace (container), which CUDA IPC does not cross"
        )


def encode(message: Mapping[str, object]) -> bytes:
    """Return a message as a line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def _object(line: bytes) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError) as failure:
        raise RefusedError("protocol", "a line that is not JSON") from failure
    if not isinstance(said, dict):
        raise RefusedError("protocol", "a line that is not a JSON object")
    return said


def _text(said: dict[str, Any], name: str) -> str:
    value = said.get(name)
    if not isinstance(value, str):
        raise RefusedError("protocol", f"{name} is not a text")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_NUMBER:
        raise RefusedError("protocol", "a number that is none")
    return value


def _numbers(values: object) -> tuple[int, ...]:
    if not isinstance(values, list):
        raise RefusedError("protocol", "numbers that are no list")
    return tuple(_number(value) for value in values)
