"""The lease socket against clients of every kind: orderly, dying, foreign, and hostile."""

from __future__ import annotations

import gc
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from kernels.errors import ConfigError
from tests.helpers.waiting import eventually
from tests.transport.device.host_cuda import HostCuda, host_view
from transport.device import protocol
from transport.device.exports import Exports
from transport.device.leases import LeaseServer, LeaseSocket
from transport.device.ledger import LeaseLimits
from transport.device.protocol import MAX_LINE_BYTES, Peer
from transport.device.slabs import SLAB_GRAIN_BYTES, SlabSet

ANN = "a" * 32
DEADLINE_S = 10
CLIENT = """
import json, os, socket, sys
os.setuid(int(sys.argv[3]))
line = socket.socket(socket.AF_UNIX)
line.connect(sys.argv[1])
try:
    line.sendall(sys.argv[2].replace("PID", str(os.getpid())).encode() + b"\\n")
except BrokenPipeError:
    pass  # refused already
print(line.makefile().readline(), end="", flush=True)
sys.stdin.read()
"""


@dataclass
class Landlord:
    """A lease server over host memory."""

    server: LeaseServer
    exports: Exports
    path: Path

    def lend(self, client: str, stream: int = 1) -> int:
        """Lend the client a batch; return the lease."""
        lending = self.exports.stream(client, stream, 0)
        region = lending.allocate(1)
        return lending.publish(region, used_bytes=1, rows=0, columns=(), cuda_stream=0).lease

    def leases(self) -> int:
        return self.exports.statistics().leases

    def clients(self) -> int:
        return self.exports.statistics().clients


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def start(stack: ExitStack, tmp_path: Path) -> Any:
    def make(limits: LeaseLimits | None = None, path: Path | None = None, **options: Any) -> Landlord:
        cuda = HostCuda()
        stack.callback(cuda.close)
        slabs = SlabSet(cuda, cuda.gpus()[0], slab_bytes=SLAB_GRAIN_BYTES, maximum_bytes=SLAB_GRAIN_BYTES)
        listener = LeaseSocket(path or tmp_path / "lease.sock")
        exports = Exports(
            cuda, [slabs], limits or LeaseLimits(), socket=str(listener.path), wait_s=0.05, make_view=host_view
        )
        server = LeaseServer(listener, exports, **options)
        stack.callback(server.close)
        return Landlord(server, exports, listener.path)

    return make


@pytest.fixture
def landlord(start: Any) -> Landlord:
    return start()


@dataclass
class Tenant:
    """A client, written out by hand."""

    socket: socket.socket

    def say(self, what: object) -> None:
        self.raw(json.dumps(what).encode() + b"\n")

    def raw(self, data: bytes) -> None:
        self.socket.sendall(data)

    def heard(self) -> dict[str, Any] | None:
        """Return the server's next line; None where it has hung up."""
        line = b""
        while not line.endswith(b"\n"):
            part = self.socket.recv(1)
            if not part:
                return None
            line += part
        return json.loads(line)

    def refusal(self) -> str:
        answer = self.heard()
        assert answer is not None
        return answer["refused"]

    def is_hung_up(self) -> bool:
        try:
            return self.heard() is None
        except ConnectionResetError:
            return True


@pytest.fixture
def dial(stack: ExitStack, landlord: Landlord) -> Any:
    def connect(path: Path = landlord.path) -> Tenant:
        line = stack.enter_context(socket.socket(socket.AF_UNIX))
        line.settimeout(DEADLINE_S)
        line.connect(str(path))
        return Tenant(line)

    return connect


def descriptors() -> int:
    gc.collect()  # of earlier tests
    return psutil.Process().num_fds()


def hello(client: str = ANN, **other: object) -> dict[str, Any]:
    here = protocol.home()
    said = {"hello": 1, "client": client, "pid": os.getpid(), "boot_id": here.boot_id, "pid_ns": here.pid_ns}
    return said | other


def test_hello_release_done_and_goodbye(landlord: Landlord, dial: Any) -> None:
    tenant = dial()
    tenant.say(hello())
    assert tenant.heard() == {"welcome": 1}
    first, second = landlord.lend(ANN), landlord.lend(ANN)
    tenant.say({"release": [first]})
    eventually(lambda: landlord.leases() == 1)
    landlord.lend(ANN, stream=1)
    tenant.say({"done": 1, "held": [second]})
    eventually(lambda: landlord.leases() == 1)
    tenant.socket.close()
    eventually(lambda: landlord.clients() == landlord.leases() == 0)


def test_messages_may_come_in_pieces_and_in_heaps(landlord: Landlord, dial: Any) -> None:
    tenant = dial()
    line = json.dumps(hello()).encode() + b"\n"
    for at in range(0, len(line), 7):
        tenant.raw(line[at : at + 7])
    assert tenant.heard() == {"welcome": 1}
    leases = [landlord.lend(ANN) for _ in range(20)]
    tenant.raw(b"".join(protocol.encode({"release": [lease]}) for lease in leases))
    eventually(lambda: landlord.leases() == 0)


def test_the_offer_says_where_and_which_host(landlord: Landlord) -> None:
    offer = landlord.server.offer()
    assert offer["free_data"] == str(landlord.path)
    assert offer["boot_id"] == protocol.home().boot_id
    json.dumps(offer)


def run_client(landlord: Landlord, client: str, user: int = -1) -> subprocess.Popen[str]:
    said = json.dumps(hello(client, pid="PID")).replace('"PID"', "PID")
    user = os.getuid() if user == -1 else user
    return subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(landlord.path), said, str(user)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_killed_client_holds_nothing(landlord: Landlord) -> None:
    for turn in range(10):
        client = f"{turn:032x}"
        with run_client(landlord, client) as process:
            assert json.loads(process.stdout.readline()) == {"welcome": 1}
            for _ in range(5):
                landlord.lend(client)
            assert landlord.leases() == 5
            process.send_signal(signal.SIGKILL)
            eventually(lambda: landlord.leases() == landlord.clients() == 0)
    assert landlord.exports.statistics().free_bytes == SLAB_GRAIN_BYTES


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("locked", [True, False])
def test_another_users_client_is_refused(start: Any, stack: ExitStack, locked: bool) -> None:
    """By the file's mode, and where that does not help, by what the kernel says of the peer."""
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp")))
    directory.chmod(0o755)
    landlord = start(path=directory / "lease.sock")
    assert landlord.path.stat().st_mode & 0o777 == 0o600
    if not locked:
        landlord.path.chmod(0o666)
    with run_client(landlord, ANN, user=65534) as process:
        said, complaint = process.communicate(timeout=DEADLINE_S)
    if locked:
        assert "PermissionError" in complaint
    else:
        assert json.loads(said)["refused"] == "user"
    assert landlord.clients() == 0


def test_another_user_as_the_kernel_would_say(start: Any, stack: ExitStack, tmp_path: Path) -> None:
    landlord = start(credentials=lambda connection: Peer(os.getpid(), os.geteuid() + 1))
    line = stack.enter_context(socket.socket(socket.AF_UNIX))
    line.settimeout(DEADLINE_S)
    line.connect(str(landlord.path))
    tenant = Tenant(line)
    assert tenant.refusal() == "user"
    assert tenant.is_hung_up()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"hello": 2}, "version"),
        ({"hello": True}, "version"),
        ({"boot_id": "another"}, "host"),
        ({"pid_ns": "pid:[1]"}, "namespace"),
        ({"pid": 1}, "namespace"),
        ({"pid": "1"}, "protocol"),
        ({"pid": -1}, "protocol"),
        ({"boot_id": None}, "protocol"),
        ({"client": "short"}, "protocol"),
        ({"client": "A" * 32}, "protocol"),
        ({"client": 5}, "protocol"),
    ],
)
def test_a_hello_that_is_not_good(landlord: Landlord, dial: Any, changed: dict[str, Any], reason: str) -> None:
    tenant = dial()
    tenant.say(hello(**changed))
    assert tenant.refusal() == reason
    assert tenant.is_hung_up()
    assert landlord.clients() == 0


@pytest.mark.parametrize(
    "garbage",
    [
        b"\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\n",
        b"[]\n",
        b"null\n",
        b"{}\n",
        b'{"release": [1]}\n',
        b"[" * 100_000 + b"\n",
        b"9" * 100_000 + b"\n",
        b'{"hello": 1e999}\n',
        b"x" * (MAX_LINE_BYTES + 2),
    ],
)
def test_garbage_instead_of_a_hello(landlord: Landlord, dial: Any, garbage: bytes) -> None:
    tenant = dial()
    try:
        tenant.raw(garbage)
    except (BrokenPipeError, ConnectionResetError):
        pass
    assert tenant.refusal() in ("protocol", "version")
    assert tenant.is_hung_up()
    other = dial()
    other.say(hello())
    assert other.heard() == {"welcome": 1}


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0\n",
        b'{"release": 5}\n',
        b'{"release": [1.5]}\n',
        b'{"release": [true]}\n',
        b'{"release": [-1]}\n',
        b'{"release": [9223372036854775808]}\n',
        b'{"done": 1}\n',
        b'{"done": "1", "held": []}\n',
        b'{"hello": 1}\n',
        b"x" * (MAX_LINE_BYTES + 2),
    ],
)
def test_who_breaks_the_protocol_later_keeps_what_it_may_be_reading(
    landlord: Landlord, dial: Any, garbage: bytes
) -> None:
    tenant = dial()
    tenant.say(hello())
    tenant.heard()
    lease = landlord.lend(ANN)
    tenant.raw(garbage)
    assert tenant.refusal() == "protocol"
    tenant.say({"release": [lease]})
    tenant.raw(b"y" * 200_000)
    other = dial()
    other.say(hello("b" * 32))
    other.heard()
    assert landlord.leases() == 1, "it is not listened to any more"
    tenant.socket.close()
    eventually(lambda: landlord.leases() == 0)


def test_one_client_cannot_give_back_what_another_holds(landlord: Landlord, dial: Any) -> None:
    ann, bob = dial(), dial()
    for tenant, name in ((ann, ANN), (bob, "b" * 32)):
        tenant.say(hello(name))
        tenant.heard()
    lease = landlord.lend(ANN)
    bob.say({"release": [lease]})
    bob.say({"done": 1, "held": []})
    last = landlord.lend("b" * 32, stream=2)
    bob.say({"release": [last]})
    eventually(lambda: landlord.leases() == 1)
    ann.say({"release": [lease]})
    eventually(lambda: landlord.leases() == 0)


def test_an_id_that_is_taken(landlord: Landlord, dial: Any) -> None:
    ann, thief = dial(), dial()
    ann.say(hello())
    assert ann.heard() == {"welcome": 1}
    lease = landlord.lend(ANN)
    thief.say(hello())
    assert thief.refusal() == "protocol"
    assert thief.is_hung_up()
    assert landlord.leases() == 1
    ann.say({"release": [lease]})
    eventually(lambda: landlord.leases() == 0)


def test_a_connection_that_says_nothing_is_closed(start: Any, stack: ExitStack) -> None:
    landlord = start(hello_s=0.1)
    line = stack.enter_context(socket.socket(socket.AF_UNIX))
    line.settimeout(DEADLINE_S)
    line.connect(str(landlord.path))
    tenant = Tenant(line)
    tenant.raw(b'{"hel')
    assert tenant.refusal() == "protocol"
    eventually(lambda: landlord.server.connections == 0)


def test_too_many_connections(start: Any, stack: ExitStack) -> None:
    landlord = start(LeaseLimits(clients=2), max_connections=3)
    tenants = []
    for number in range(3):
        line = stack.enter_context(socket.socket(socket.AF_UNIX))
        line.settimeout(DEADLINE_S)
        line.connect(str(landlord.path))
        tenants.append(Tenant(line))
        tenants[-1].say(hello(f"{number:032x}"))
    assert [tenant.heard() for tenant in tenants[:2]] == [{"welcome": 1}] * 2
    assert tenants[2].refusal() == "busy", "a third client"
    assert tenants[2].is_hung_up()
    silent = stack.enter_context(socket.socket(socket.AF_UNIX))
    silent.connect(str(landlord.path))
    eventually(lambda: landlord.server.connections == 3)
    line = stack.enter_context(socket.socket(socket.AF_UNIX))
    line.settimeout(DEADLINE_S)
    line.connect(str(landlord.path))
    assert Tenant(line).refusal() == "busy", "a fourth connection"
    tenants[0].socket.close()
    eventually(lambda: landlord.clients() == 1)


def test_a_flood_of_connections_and_noise_leaves_nothing_behind(landlord: Landlord, dial: Any) -> None:
    honest = dial()
    honest.say(hello())
    honest.heard()
    before = descriptors()
    problems: list[BaseException] = []

    def pester(number: int) -> None:
        source = random.Random(number)
        try:
            for _ in range(100):
                with socket.socket(socket.AF_UNIX) as line:
                    line.connect(str(landlord.path))  # waits while the backlog is full
                    line.settimeout(DEADLINE_S)
                    try:
                        if source.random() < 0.3:
                            line.sendall(json.dumps(hello(f"{source.getrandbits(128):032x}")).encode() + b"\n")
                        line.sendall(source.randbytes(source.randrange(2000)))
                    except (BrokenPipeError, ConnectionResetError):
                        pass
        except BaseException as failure:
            problems.append(failure)

    threads = [threading.Thread(target=pester, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert problems == []
    eventually(lambda: landlord.server.connections == 1)
    assert descriptors() == before
    lease = landlord.lend(ANN)
    honest.say({"release": [lease]})
    eventually(lambda: landlord.leases() == 0)


def test_out_of_descriptors_it_goes_on_when_there_are_some(
    landlord: Landlord, dial: Any, stack: ExitStack
) -> None:
    honest = dial()
    honest.say(hello())
    honest.heard()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
    waiting.settimeout(DEADLINE_S)
    lease = landlord.lend(ANN)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors(), hard))
    try:
        waiting.connect(str(landlord.path))
        honest.say({"release": [lease]})
        eventually(lambda: landlord.leases() == 0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    late = Tenant(waiting)
    late.say(hello("b" * 32))
    assert late.heard() == {"welcome": 1}


def test_descriptors_sent_along_are_not_kept(landlord: Landlord, dial: Any) -> None:
    tenant = dial()
    tenant.say(hello())
    tenant.heard()
    lease = landlord.lend(ANN)
    before = descriptors()
    for _ in range(20):
        socket.send_fds(tenant.socket, [b"\n"[:0] + protocol.encode({"release": []})], [tenant.socket.fileno()])
    tenant.say({"release": [lease]})
    eventually(lambda: landlord.leases() == 0)
    assert descriptors() == before


def test_close_leaves_nothing(start: Any, tmp_path: Path, stack: ExitStack) -> None:
    before, threads = descriptors(), threading.active_count()
    landlord = start()
    line = stack.enter_context(socket.socket(socket.AF_UNIX))
    line.settimeout(DEADLINE_S)
    line.connect(str(landlord.path))
    tenant = Tenant(line)
    tenant.say(hello())
    tenant.heard()
    landlord.server.close()
    landlord.server.close()
    assert tenant.is_hung_up()
    line.close()
    assert not landlord.path.exists()
    assert (descriptors(), threading.active_count()) == (before, threads)


def test_a_socket_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    listener = LeaseSocket()
    assert listener.path.parent.parent == tmp_path
    assert listener.path.parent.stat().st_mode & 0o777 == 0o700
    listener.close()
    assert list(tmp_path.iterdir()) == []


def test_the_socket_of_a_dead_server_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "lease.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    listener = LeaseSocket(path)
    with pytest.raises(ConfigError, match="another server listens"):
        LeaseSocket(path)
    assert path.is_socket()
    listener.close()
    assert not path.exists()


def test_a_runtime_directory_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nowhere")
    listener = LeaseSocket()
    listener.close()
    assert not listener.path.parent.exists()


@pytest.mark.parametrize("name", ["x" * 200, "absent/lease.sock", "file"])
def test_paths_that_cannot_be(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("something else")
    before = descriptors()
    with pytest.raises(ConfigError, match="lease socket"):
        LeaseSocket(tmp_path / name)
    assert (tmp_path / "file").read_text() == "something else"
    assert descriptors() == before


@pytest.mark.parametrize("text", ["", "a.1", f"{ANN}", f"{ANN}.", f"{ANN}.-1", f"{ANN}.1x", f"{ANN}." + "9" * 19])
def test_the_reader_s_name(text: str) -> None:
    assert protocol.parse_reader(f"{ANN}.17") == (ANN, 17)
    with pytest.raises(protocol.RequestError):
        protocol.parse_reader(text)
