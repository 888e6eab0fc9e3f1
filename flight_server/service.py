"""Settings -> a running server, until a signal says otherwise."""

from __future__ import annotations

import os
import signal
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import structlog

from flight_server import startup
from flight_server.access import build
from flight_server.config import Settings
from flight_server.gpu.decoding import GpuOptions
from flight_server.gpu.lending import GpuSide, LendingOptions
from flight_server.gpu.start import LateGpuSide, bring_up
from flight_server.observe.observer import Observer
from flight_server.reading.decoding import Decodings, HostDecoding
from flight_server.reading.file_reads import FileOptions, FileReads
from flight_server.reading.pipeline import Pipeline
from flight_server.reading.sessions import Limits, Sessions
from flight_server.reading.snapshots import SnapshotLimits
from flight_server.reading.transports import Transports
from flight_server.server import FlightServer
from flight_server.sql.transactions import TransactionLimits
from flight_server.tickets import TicketSigner
from kernels.backend import CudaBackend, HostBackend, gpus_present, is_compiled, select_backend, warm_up
from kernels.errors import ConfigError
from transport.memory import RegionPool
from transport.pool import ConnectionPool, PoolOptions
from transport.spool import Spool, SpoolOptions

log = structlog.get_logger("pgflight")

MIB = 1 << 20
SHUTDOWN_S = 1.5
"""How long gRPC may take to end the calls that are left after the grace period."""


class Service:
    """One server with its pool of connections and memory.

    Parameters
    ----------
    settings : Settings

    Raises
    ------
    PgflightError
        PostgreSQL cannot be reached, the role is unsafe, or a setting is wrong.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        dsn = settings.dsn.get_secret_value()
        self._backend = select_backend(settings.decode)
        facts = startup.probe(dsn)
        startup.require_safe(facts, allow_superuser=settings.allow_superuser)
        if not is_compiled():
            log.info("compiling", note="kernels are compiled once per version and kept on disk; about 10 s")
        host = select_backend("cpu")
        log.info("kernels ready", backend=host.name, reason=self._backend.reason, seconds=round(warm_up(host), 3))
        self._facts = facts
        self._gpu = _gpu_side(settings, self._backend)
        decodings = _decodings(settings, self._gpu)
        access = build(settings, self._opener(settings, decodings), self._on_change)
        self._spool = _spool(settings)
        self._transports = Transports(self._spool, _files(settings), settings.collect_mib)
        try:
            self._server = FlightServer(
                settings.listen,
                access,
                TicketSigner(settings.ticket_key(), settings.ticket_lifetime_s),
                info=self.info,
                certificates=_certificates(settings),
                client_authority=_authority(settings),
                replicas=settings.replica_uris(),
                transactions=_transactions(settings),
                share_memory=settings.share_memory,
            )
        except (OSError, pa.ArrowException) as failure:  # a bad address, a taken port, a bad certificate
            if self._gpu:
                self._gpu.close()
            raise ConfigError(f"cannot listen on {settings.listen}: {failure}") from failure
        self.uri = _uri(settings.listen, self._server.port)
        self._observer = Observer(self._server, dsn, settings.http_listen)

    def _opener(self, settings: Settings, decodings: Decodings) -> Callable[[str, int], Pipeline]:
        def open_pipeline(conninfo: str, connections: int) -> Pipeline:
            pool = ConnectionPool(conninfo, _pool_options(settings, connections))
            sessions = Sessions(pool, _limits(settings, connections), decodings)
            return Pipeline(sessions, decodings, self._spool, self._transports)

        return open_pipeline

    def _on_change(self, identity: str) -> None:
        """Let nobody go on with the connections of a password that was changed."""
        self._server.tenants.drop(identity)

    def info(self) -> dict[str, Any]:
        """Return what the ``info`` action answers."""
        keepers = [tenant.pipeline.keeper for tenant in self._server.tenants.all()]
        return startup.describe(self._backend, self._facts) | {
            "uri": self.uri,
            "streams": self._server.streams,
            "snapshots": {
                "held": sum(keeper.count for keeper in keepers),
                "oldest_s": round(max((keeper.oldest_s for keeper in keepers), default=0.0), 3),
            },
            "gpu": self._gpu.info() if self._gpu else {"problem": _no_gpu(self._settings)},
        }

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain; a second signal, or the grace period's end, forces it."""
        asked, forced = threading.Event(), threading.Event()

        def on_signal(_number: int, _frame: FrameType | None) -> None:
            # Nothing else: the interrupted thread may hold the log's lock.
            (forced if asked.is_set() else asked).set()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, on_signal)
        log.info(
            "listening", uri=self.uri, backend=self._backend.name, reader=self._facts.reader,
            http_port=self._observer.port,
            role=self._facts.role, database=self._facts.database, postgresql=self._facts.server_version,
        )  # fmt: skip
        while not asked.wait(1.0):
            pass
        self._stop(forced)

    def _stop(self, forced: threading.Event) -> None:
        grace_s = self._settings.drain_grace_s
        drained = threading.Event()

        def drain() -> None:
            if self._server.drain(grace_s):
                drained.set()

        self._server.refuse_calls()
        log.info("draining", streams=self._server.streams, grace_s=grace_s)
        drainer = threading.Thread(target=drain, name="drain", daemon=True)
        drainer.start()
        while drainer.is_alive() and not forced.wait(0.05):
            pass
        # gRPC's shutdown waits for running calls without a limit, so it may not be waited for without one.
        closer = threading.Thread(target=self._server.shutdown, name="shutdown", daemon=True)
        closer.start()
        closer.join(SHUTDOWN_S)
        clean = drained.is_set() and not closer.is_alive()
        log.info("stopped", clean=clean)
        if not clean:
            # Threads are stuck in gRPC behind clients that do not read: the process's end closes all sockets.
            os._exit(0)
        self._observer.close()
        self._server.tenants.close()
        if self._spool is not None:
            self._spool.close()
        if self._gpu:
            self._gpu.close()


def _gpu_side(settings: Settings, backend: HostBackend | CudaBackend) -> GpuSide | LateGpuSide | None:
    """Bring up the GPUs that are asked for, or that are there and not ruled out."""
    options = GpuOptions(settings.gpus, settings.block_mib, settings.pinned_blocks, settings.gpu_memory_mib)
    lending = LendingOptions(
        memory_mib=settings.lease_memory_mib,
        slab_mib=settings.lease_slab_mib,
        client_mib=settings.lease_client_mib,
        lease_s=settings.lease_s,
        socket=settings.lease_socket,
    )
    if isinstance(backend, CudaBackend):
        return bring_up(backend, options, lending)
    return LateGpuSide(options, lending) if settings.decode == "auto" and gpus_present() else None


def _decodings(settings: Settings, gpu: GpuSide | LateGpuSide | None) -> Decodings:
    host = HostDecoding(select_backend("cpu"), RegionPool(settings.memory_mib * MIB))
    return Decodings(host, gpu, prefer_gpu=settings.decode == "gpu", why=_no_gpu(settings))


def _no_gpu(settings: Settings) -> str:
    if settings.decode == "cpu":
        return "this server decodes on the CPU (its setting decode is cpu)"
    return "this server decodes on the CPU: its host has no GPU"


def _transactions(settings: Settings) -> TransactionLimits | None:
    if not settings.allow_writes:
        return None
    return TransactionLimits(
        idle_s=settings.transaction_idle_s,
        max_s=settings.transaction_max_s,
        count=settings.max_transactions,
        wait_s=settings.connection_wait_s,
    )


def _pool_options(settings: Settings, connections: int) -> PoolOptions:
    return PoolOptions(
        max_connections=connections,
        reserved=min(settings.reserved_connections, connections // 4),
        max_waiting=settings.max_waiting,
        wait_s=settings.connection_wait_s,
    )


def _limits(settings: Settings, connections: int) -> Limits:
    return Limits(
        max_row_bytes=settings.max_row_mib * MIB,
        statement_timeout_s=settings.statement_timeout_s,
        lock_timeout_s=settings.lock_timeout_s,
        stall_timeout_s=settings.stall_timeout_s,
        reader=settings.reader,
        max_streams=settings.max_streams,
        snapshots=SnapshotLimits(
            lease_s=min(settings.snapshot_lease_s, settings.snapshot_max_s),
            max_s=settings.snapshot_max_s,
            # Readers need connections too: holders never take more than half.
            count=min(settings.max_snapshots, connections // 2),
        ),
    )


def _spool(settings: Settings) -> Spool | None:
    if settings.spool_dir is None:
        return None
    sizes = {"max_bytes": settings.spool_max_mib * MIB, "min_free_bytes": settings.spool_min_free_mib * MIB}
    return Spool(SpoolOptions(settings.spool_dir, **sizes))


def _files(settings: Settings) -> FileReads | None:
    if settings.file_dsn is None or settings.file_dir is None:
        return None
    return FileReads(FileOptions(settings.file_dsn.get_secret_value(), settings.file_dir))


def _certificates(settings: Settings) -> list[tuple[bytes, bytes]] | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return [(_read(settings.tls_cert), _read(settings.tls_key))]


def _authority(settings: Settings) -> bytes | None:
    if settings.tls_client_ca is None:
        return None
    text = _read(settings.tls_client_ca)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=text.decode())
    except (ssl.SSLError, ValueError) as failure:
        raise ConfigError(f"tls_client_ca: {settings.tls_client_ca} holds no PEM certificates") from failure
    return text


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as failure:
        raise ConfigError(f"cannot read {path}: {failure.strerror}") from failure


def _uri(listen: str, port: int) -> str:
    """Return the URI clients connect to: the port is known only now if 0 was asked for."""
    parts = urlsplit(listen)
    if parts.scheme == "grpc+unix":
        return listen
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}:{port}"
