"""What the server counts, in the form Prometheus reads; labels come from fixed sets, never from clients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)

OUTCOMES = {"complete": "complete", "abandoned": "abandoned", "CancelledError": "abandoned"}
"""All others are failures: a client that goes away is none."""

REGISTRY = CollectorRegistry()
REQUESTS = Counter("pgflight_requests", "Calls answered.", ["method", "code"], registry=REGISTRY)
STREAMS = Counter("pgflight_streams", "Reads that ended.", ["outcome"], registry=REGISTRY)
STREAM_SECONDS = Histogram(
    "pgflight_stream_seconds", "Time from a read's start to its end.", buckets=SECONDS, registry=REGISTRY
)
ROWS = Counter("pgflight_rows", "Rows decoded for clients.", registry=REGISTRY)
POSTGRES_BYTES = Counter("pgflight_postgres_bytes", "Bytes of COPY received from PostgreSQL.", registry=REGISTRY)
STALLED = Counter("pgflight_stalled_streams", "Reads ended because the client did not read.", registry=REGISTRY)


def count_call(method: str, code: str = "ok") -> None:
    """Count a call by how it was answered; `code` is the name of the error's class."""
    REQUESTS.labels(method, code).inc()


def count_read(outcome: str, rows: int, postgres_bytes: int, seconds: float) -> None:
    """Count a read that is over; outcomes are the tally's."""
    STREAMS.labels(OUTCOMES.get(outcome, "failed")).inc()
    STREAM_SECONDS.observe(seconds)
    ROWS.inc(rows)
    POSTGRES_BYTES.inc(postgres_bytes)


@dataclass(frozen=True, slots=True)
class Levels:
    """What is so at this moment, over all identities.

    Parameters
    ----------
    streams : int
    snapshots : int
    snapshot_age_s : float
        Of the oldest one held.
    connections : dict
        PostgreSQL connections by state: ``idle`` or ``lent``.
    waiting : int
        Requests that wait for a connection.
    """

    streams: int
    snapshots: int
    snapshot_age_s: float
    connections: dict[str, int]
    waiting: int


class LevelsCollector(Collector):
    """Asks for the levels when Prometheus does.

    Parameters
    ----------
    levels : callable
    """

    def __init__(self, levels: Callable[[], Levels]) -> None:
        self._levels = levels

    def describe(self) -> list[Metric]:
        """Return nothing: registering asks for no levels."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return the levels of now."""
        now = self._levels()
        yield GaugeMetricFamily("pgflight_streams_active", "Streams being served.", now.streams)
        yield GaugeMetricFamily("pgflight_snapshots_held", "Snapshots held for endpoints.", now.snapshots)
        yield GaugeMetricFamily("pgflight_snapshot_age_seconds", "Age of the oldest of them.", now.snapshot_age_s)
        yield GaugeMetricFamily("pgflight_queue_depth", "Requests that wait for a connection.", now.waiting)
        connections = GaugeMetricFamily("pgflight_pg_connections", "PostgreSQL connections.", labels=["state"])
        for state, count in now.connections.items():
            connections.add_metric([state], count)
        yield connections
