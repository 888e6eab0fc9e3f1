"""Identities apart from one another: each has connections, snapshots, statements and caches of its own."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog

from flight_server.reading.pipeline import Pipeline
from flight_server.sql.frontend import Frontend
from kernels.errors import ConnectionLostError, OverloadedError

log = structlog.get_logger("pgflight.login")

TICK_S = 5.0
GRACE_S = 0.5
"""Between a plan and its reading passes a moment: so long nobody has to make room."""


@dataclass(frozen=True, slots=True)
class TenantLimits:
    """How many identities are served at once.

    Parameters
    ----------
    count : int
        Each has a pool of its own; their sizes together are the server's limit.
    idle_s : float
        What is kept for an identity is let go of when it has not called for so long; 0 for never.
    wait_s : float
        How long a call waits for one of the others to be idle.
    vet_s : float
        An identity's PostgreSQL login is looked at again when that was last done so long ago.
    """

    count: int = 1
    idle_s: float = 0.0
    wait_s: float = 30.0
    vet_s: float = 60.0


@dataclass(eq=False, slots=True)
class Tenant:
    """What the server has for one identity.

    Parameters
    ----------
    identity : str
    pipeline : Pipeline
        With connections, snapshots and type cache of its own.
    sql : Frontend
        With statements and metadata of its own.
    """

    identity: str
    pipeline: Pipeline
    sql: Frontend
    users: int = 0
    closing: bool = False
    called_at: float = 0.0
    vetted_at: float = -math.inf
    vetting: threading.Lock = field(default_factory=threading.Lock)

    @property
    def idle(self) -> bool:
        """Whether nobody needs it: snapshots and transactions are there for calls that are still to come."""
        return self.users == 0 and self.pipeline.keeper.count == 0 and not self.sql.transactions

    def close(self) -> None:
        """End its transactions, snapshots and connections."""
        self.sql.close()
        self.pipeline.keeper.close()
        self.pipeline.close_connections()
        log.info("identity closed", identity=self.identity)


class Tenants:
    """Opens what an identity needs when it calls, and closes it when it is idle.  Thread-safe.

    Parameters
    ----------
    open_pipeline : callable
        Returns the pipeline of an identity; raises where it has no access.
    open_sql : callable
        Returns what speaks Flight SQL on a pipeline.
    limits : TenantLimits
    vet : callable
        Raises where an identity's PostgreSQL login is not to be used, or not any more.
    on_lost : callable
        Told of an identity whose connection to PostgreSQL could not be had, or was lost; raises where it knows
        why.
    """

    def __init__(
        self,
        open_pipeline: Callable[[str], Pipeline],
        open_sql: Callable[[Pipeline], Frontend],
        limits: TenantLimits,
        vet: Callable[[str], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._open_pipeline = open_pipeline
        self._open_sql = open_sql
        self._limits = limits
        self._vet = vet
        self._on_lost = on_lost
        self._tenants: OrderedDict[str, Tenant] = OrderedDict()
        self._leaving: set[Tenant] = set()
        self._changed = threading.Condition()
        self._closed = threading.Event()
        if limits.idle_s:
            threading.Thread(target=self._reap, name="tenants", daemon=True).start()

    @contextmanager
    def of(self, identity: str) -> Iterator[Tenant]:
        """Use what an identity has; it is not closed meanwhile.

        Raises
        ------
        OverloadedError
            As many others as may be are served just now.
        """
        tenant = self._enter(identity)
        try:
            with tenant.vetting:  # calls that come at the same time wait for the first one's result
                if time.monotonic() - tenant.vetted_at > self._limits.vet_s:
                    self._vet(identity)
                    tenant.vetted_at = time.monotonic()
            yield tenant
        except ConnectionLostError:
            self._on_lost(identity)
            raise
        finally:
            self._leave(tenant)

    def drop(self, identity: str) -> None:
        """Forget what an identity has: its next call begins anew, those under way end first."""
        with self._changed:
            tenant = self._tenants.pop(identity, None)
            if tenant is not None:
                self._leaving.add(tenant)
        self._close_over()

    def all(self) -> list[Tenant]:
        """Return those of now."""
        with self._changed:
            return [*self._tenants.values(), *self._leaving]

    def close(self) -> None:
        """Close all, whatever they do."""
        self._closed.set()
        with self._changed:
            tenants = [*self._tenants.values(), *self._leaving]
            self._tenants.clear()
            self._leaving.clear()
        for tenant in tenants:
            tenant.close()

    def _enter(self, identity: str) -> Tenant:
        deadline = time.monotonic() + self._limits.wait_s
        while True:
            with self._changed:
                tenant = self._admit(identity)
                if tenant is not None:
                    tenant.users += 1
                    return tenant
                horizon = time.monotonic() - GRACE_S
                idle = [each for each in self._tenants.values() if each.idle and each.called_at < horizon]
                if idle:
                    self._leaving.add(self._tenants.pop(idle[0].identity))
                elif time.monotonic() < deadline:
                    self._changed.wait(GRACE_S / 4)
                else:
                    raise OverloadedError(
                        f"{self._limits.count} identities are served at once: try again (max_connections)"
                    )
            self._close_over()

    def _admit(self, identity: str) -> Tenant | None:
        """Return the identity's, opened if there is room; those that are leaving still take theirs."""
        if identity not in self._tenants:
            if len(self._tenants) + len(self._leaving) >= self._limits.count:
                return None
            pipeline = self._open_pipeline(identity)  # connects to nothing yet
            self._tenants[identity] = Tenant(identity, pipeline, self._open_sql(pipeline))
        self._tenants.move_to_end(identity)
        return self._tenants[identity]

    def _leave(self, tenant: Tenant) -> None:
        with self._changed:
            tenant.users -= 1
            tenant.called_at = time.monotonic()
            self._changed.notify_all()
        self._close_over()

    def _close_over(self) -> None:
        """Close those that are leaving and have no calls left; others are served meanwhile."""
        with self._changed:
            over = [tenant for tenant in self._leaving if tenant.users == 0 and not tenant.closing]
            for tenant in over:
                tenant.closing = True
        for tenant in over:
            tenant.close()
            with self._changed:
                self._leaving.discard(tenant)
                self._changed.notify_all()

    def _reap(self) -> None:
        """Close those that are idle for long (runs in a thread of its own)."""
        while not self._closed.wait(min(TICK_S, self._limits.idle_s / 4)):
            horizon = time.monotonic() - self._limits.idle_s
            with self._changed:
                over = [tenant for tenant in self._tenants.values() if tenant.idle and tenant.called_at < horizon]
                for tenant in over:
                    self._leaving.add(self._tenants.pop(tenant.identity))
            self._close_over()
