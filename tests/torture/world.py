"""What is tortured: PostgreSQL, a server in front of it, and links that can be broken between them and to clients."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import psutil
import psycopg
from psycopg.conninfo import conninfo_to_dict

import pgflight
from demo.postgres import EmbeddedPostgres
from tests.helpers.server import ServerProcess
from tests.helpers.waiting import eventually
from tests.torture.link import Link

TABLE, ROWS = "tortured", 120_000
GRACE_S = 3.0
SETTLE_S = 5.0
"""After so long nothing of a read may be left."""


@dataclass
class World:
    """PostgreSQL, links and a server; each can be had anew."""

    postgres: EmbeddedPostgres
    link: Link
    """Between PostgreSQL and the server."""
    server: ServerProcess
    front: Link
    """Between the server and clients."""
    base: tuple[int, int] = (0, 0)
    """The server's file descriptors and threads when it was new."""

    @property
    def uri(self) -> str:
        """Where clients connect."""
        return f"grpc://127.0.0.1:{self.front.port}"

    def streaming(self) -> list[psutil.Process]:
        """Return the backends that are not idle."""
        try:
            children = psutil.Process(self.postgres.pid).children()
            titles = [(child, " ".join(child.cmdline()).strip()) for child in children]
        except psutil.Error:
            return []
        return [child for child, title in titles if " pgflight demo " in title and not title.endswith(" idle")]

    def measure(self) -> tuple[int, int]:
        """Return the server's file descriptors and threads."""
        return self.server.process.num_fds(), self.server.process.num_threads()

    def mend(self) -> None:
        """Bring back what was killed, and heal the links."""
        self.link.heal()
        self.front.heal()
        if not psutil.pid_exists(self.postgres.pid) or not self._answers():
            self.postgres.restart()
        eventually(self._answers, deadline_s=30)
        if self.server.returncode is not None:
            self.server = serve(self.link)
            self.front.target = ("127.0.0.1", int(self.server.uri.rpartition(":")[2]))
            self.base = (0, 0)
        eventually(self.serves, deadline_s=30)

    def ends(self) -> bool:
        """Whether a server that was told to stop does, within its grace period and two seconds more."""
        try:
            self.server.wait(GRACE_S + 2.0)
        except subprocess.TimeoutExpired:
            self.server.signal(signal.SIGKILL)
            self.server.wait()
            return False
        return True

    def serves(self) -> bool:
        """Whether the server reads from PostgreSQL again."""
        try:
            with pgflight.connect(self.server.uri) as client:
                return client.query("select 1 as a").to_arrow().num_rows == 1
        except Exception:  # any failure is the answer: not yet
            return False

    def leaks(self) -> list[str]:
        """Say what is left of earlier reads after the time that it may take to go."""
        end = time.monotonic() + SETTLE_S
        while found := self._left():
            if time.monotonic() > end:
                return found
            time.sleep(0.05)
        return []

    def _left(self) -> list[str]:
        found = [f"a backend: {process.pid}" for process in self.streaming()]
        with pgflight.connect(self.server.uri) as client:
            info = client.info()
        if info["streams"]:
            found.append(f"{info['streams']} streams")
        if info["snapshots"]["held"]:
            found.append(f"{info['snapshots']['held']} snapshots")
        descriptors, threads = self.measure()
        if self.base == (0, 0):
            self.base = (descriptors, threads)
        # gRPC keeps some of both for a while; what grows from run to run is seen all the same
        if descriptors > self.base[0] + 24:
            found.append(f"{descriptors - self.base[0]} file descriptors")
        if threads > self.base[1] + 24:
            found.append(f"{threads - self.base[1]} threads")
        return found

    def _answers(self) -> bool:
        try:
            with self.postgres.connect(user="postgres") as connection:
                return connection.execute("select 1").fetchone() == (1,)
        except psycopg.Error:
            return False


def serve(link: Link) -> ServerProcess:
    """Start a server that reaches PostgreSQL by a link."""
    dsn = f"host=127.0.0.1 port={link.port} user=pgflight dbname=demo"
    flags = ("--connection-wait-s", "5", "--drain-grace-s", str(GRACE_S), "--max-streams", "4")
    return ServerProcess(dsn, *flags)


@contextmanager
def world() -> Iterator[World]:
    """Make everything, with a filled table."""
    with ExitStack() as stack:
        postgres = stack.enter_context(EmbeddedPostgres.start())
        with postgres.connect() as connection:
            connection.execute(
                f"create table {TABLE} as select g as id, (g * 7.25)::numeric(15, 2) as price, "
                f"md5(g::text) || repeat('x', g % 200) as text, case when g % 5 > 0 then g % 3 = 0 end as even "
                f"from generate_series(1, {ROWS}) g".encode()
            )
        port = int(conninfo_to_dict(postgres.dsn())["port"] or 0)
        link = stack.enter_context(Link("127.0.0.1", port))
        server = serve(link)
        front = stack.enter_context(Link("127.0.0.1", int(server.uri.rpartition(":")[2])))
        made = World(postgres, link, server, front)
        try:
            yield made
        finally:
            if made.server.returncode is None:
                made.server.signal(signal.SIGKILL)
            made.server.stop()
