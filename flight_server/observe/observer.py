"""Looks at the running server for the side port: its levels, and whether it is ready."""

from __future__ import annotations

import threading
import time

from prometheus_client import CollectorRegistry

from flight_server import startup
from flight_server.config import http_address
from flight_server.observe.metrics import REGISTRY, Levels, LevelsCollector
from flight_server.observe.side import SidePort
from flight_server.server import FlightServer
from kernels.errors import ConfigError

FRESH_S = 1.0
"""PostgreSQL is asked this often at most, however many probe."""


class Observer:
    """The side port of one server; nothing at all where no address is given.

    Parameters
    ----------
    server : FlightServer
    dsn : str
        PostgreSQL's, for readiness.
    listen : str
        Port, or HOST:PORT; empty for off.

    Raises
    ------
    ConfigError
        The address cannot be listened on.
    """

    def __init__(self, server: FlightServer, dsn: str, listen: str) -> None:
        self._server = server
        self._dsn = dsn
        self._lock = threading.Lock()
        self._unreachable = False
        self._asked_at = -FRESH_S
        self._side: SidePort | None = None
        if not listen:
            return
        registry = CollectorRegistry()
        registry.register(REGISTRY)
        registry.register(LevelsCollector(self.levels))
        try:
            self._side = SidePort(*http_address(listen), registry, self.problem)
        except OSError as failure:
            raise ConfigError(f"cannot listen on http_listen {listen}: {failure.strerror}") from failure

    @property
    def port(self) -> int | None:
        """The side port's number, None where there is none."""
        return self._side.port if self._side else None

    def levels(self) -> Levels:
        """Return the levels of now, over all identities."""
        pipelines = [tenant.pipeline for tenant in self._server.tenants.all()]
        pools = [pipeline.sessions.pool for pipeline in pipelines]
        statistics = [pool.statistics() for pool in pools]
        idle = sum(each["pool_available"] for each in statistics)
        return Levels(
            streams=self._server.streams,
            snapshots=sum(pipeline.keeper.count for pipeline in pipelines),
            snapshot_age_s=max((pipeline.keeper.oldest_s for pipeline in pipelines), default=0.0),
            connections={"idle": idle, "lent": sum(each["pool_size"] for each in statistics) - idle},
            waiting=sum(pool.waiting for pool in pools),
        )

    def problem(self) -> str | None:
        """Return why the server cannot serve, None if it can; without details, since anybody may ask."""
        if self._server.draining:
            return "the server is shutting down"
        with self._lock:
            if time.monotonic() - self._asked_at >= FRESH_S:
                self._unreachable = startup.unreachable(self._dsn)
                self._asked_at = time.monotonic()
            return "PostgreSQL cannot be reached" if self._unreachable else None

    def close(self) -> None:
        """Stop answering."""
        if self._side:
            self._side.close()
