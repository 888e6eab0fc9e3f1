"""One table read by 1, 2, 4 … streams: pgflight and the raw streams beneath it, in turn, point by point."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pyarrow import flight

from benchmark import worker
from benchmark.contestants import COPY_FLOOR, ENDPOINTS, PARALLEL, Contestant, by_name
from benchmark.measure import Sample
from benchmark.results import Entry
from benchmark.target import Target

BASE_MEMORY_MIB = 384
STREAM_MEMORY_MIB = 48
"""Blocks, batches that wait for the client, and those that gRPC sends: several MiB each, with room to spare."""
SPARE_CONNECTIONS = 6
ROW_BYTES = 256
"""More than a row of any of the tables takes in PostgreSQL's cache."""
MIN_CACHE_MIB = 512


class TooSmallError(ValueError):
    """The table cannot keep so many streams busy: the point would show something else."""


@dataclass(frozen=True)
class Point:
    """A number of streams: the floor, and pgflight's ways to read by so many."""

    streams: int
    floor: Entry
    ways: Sequence[Entry]

    def ratio(self, way: Entry) -> float:
        """Return a way's time as a multiple of that of as many raw streams."""
        return way.median.seconds / self.floor.median.seconds


@dataclass(frozen=True)
class Curve:
    """All points of one table, fewest streams first."""

    table: str
    rows: int
    points: Sequence[Point]

    @property
    def wire_bytes(self) -> int:
        """Bytes of the table as COPY streams."""
        return int(self.points[0].floor.median.wire_bytes)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON, with what follows from it."""
        points = [
            {
                "streams": point.streams,
                "floor": self._entry(point.floor, point),
                "ways": [self._entry(way, point) for way in point.ways],
            }
            for point in self.points
        ]
        return {"table": self.table, "rows": self.rows, "wire_bytes": self.wire_bytes, "points": points}

    @classmethod
    def from_json(cls, parts: Mapping[str, Any]) -> Curve:
        """Read what `to_json` wrote."""
        points = [
            Point(
                point["streams"], Entry.from_json(point["floor"]), [Entry.from_json(way) for way in point["ways"]]
            )
            for point in parts["points"]
        ]
        return cls(parts["table"], parts["rows"], points)

    def _entry(self, entry: Entry, point: Point) -> dict[str, Any]:
        seconds = entry.median.seconds
        return {
            **asdict(entry),
            "median": asdict(entry.median),
            "rows_per_s": self.rows / seconds,
            "wire_gb_per_s": self.wire_bytes / seconds / 1e9,
            "ratio": point.ratio(entry),
        }


class Scaling:
    """The reads of one table by several numbers of streams.

    Parameters
    ----------
    target
        What to read; its own number of streams does not matter.
    streams
        Numbers of streams, each once.
    endpoints
        Whether to read by as many endpoints, too.
    progress
        Called with a name before each read.
    """

    def __init__(
        self, target: Target, streams: Sequence[int], progress: Callable[[str], None], *, endpoints: bool
    ) -> None:
        self._target = target
        self._steps = [(count, each) for count in streams for each in _contestants(count, endpoints=endpoints)]
        self._warm_up = [(max(streams), each) for each in _contestants(max(streams), endpoints=endpoints)]
        self._progress = progress
        self._samples: dict[tuple[int, str], list[Sample]] = defaultdict(list)

    def reads(self, rounds: int) -> int:
        """Return the number of reads of the warm-up and of so many rounds."""
        return len(self._warm_up) + rounds * len(self._steps)

    def require_streams(self) -> None:
        """Raise if the server would not use as many streams as the points say.

        Raises
        ------
        TooSmallError
            The table is too small.
        """
        with flight.connect(self._target.uri) as client:
            for count in sorted({count for count, _ in self._steps}):
                command = json.dumps({"sql": self._target.sql, "options": {"streams": count}})
                descriptor = flight.FlightDescriptor.for_command(command.encode())
                facts = json.loads(client.get_flight_info(descriptor).app_metadata)
                if facts["streams"] != count:
                    raise TooSmallError(
                        f"{self._target.table} with {self._target.rows} rows is read by {facts['streams']} streams, "
                        f"not by {count}: {facts['why']}"
                    )

    def warm_up(self) -> None:
        """Read once by most streams, for no record: the table is in the cache then."""
        for count, contestant in self._warm_up:
            self._run(count, contestant)

    def round(self) -> None:
        """Read once at every point, floor and pgflight in turn."""
        for count, contestant in self._steps:
            self._samples[count, contestant.name].append(self._run(count, contestant))

    def result(self) -> Curve:
        """Return what has been measured."""
        entries: dict[int, list[Entry]] = defaultdict(list)
        for count, each in self._steps:
            samples = self._samples[count, each.name]
            entries[count].append(Entry(each.name, each.title, each.group, count, samples, None))
        points = [Point(count, floor, ways) for count, (floor, *ways) in sorted(entries.items())]
        return Curve(self._target.table, self._target.rows, points)

    def _run(self, count: int, contestant: Contestant) -> Sample:
        self._progress(f"{contestant.title}, {count}")
        target = replace(self._target, streams=count)
        if contestant.group == "floor":
            target = replace(target, server_pid=None)
        return Sample(**worker.run(contestant.name, target))


def server_options(streams: int) -> list[str]:
    """Return the options of a server that can read by so many streams, or endpoints."""
    options = {
        "--max-streams": streams,
        "--max-connections": streams + SPARE_CONNECTIONS,
        "--memory-mib": BASE_MEMORY_MIB + STREAM_MEMORY_MIB * streams,
    }
    return [word for name, value in options.items() for word in (name, str(value))]


def postgres_settings(streams: int, rows: int) -> dict[str, str]:
    """Return the settings of a PostgreSQL that holds the table in its cache and serves so many streams."""
    # The floors' connections end while the server's stay open.
    connections = max(100, 3 * (streams + SPARE_CONNECTIONS))
    cache_mib = max(MIN_CACHE_MIB, rows * ROW_BYTES >> 20)
    return {"max_connections": str(connections), "shared_buffers": f"{cache_mib}MB"}


def doubling(cores: int) -> list[int]:
    """Return 1, 2, 4 … and the number of cores itself."""
    return sorted({1 << power for power in range(cores.bit_length()) if 1 << power <= cores} | {cores})


def _contestants(count: int, *, endpoints: bool) -> list[Contestant]:
    """Name who reads by so many streams: the floor first."""
    suffix = PARALLEL if count > 1 else ""
    return [by_name(COPY_FLOOR + suffix), by_name("pgflight" + suffix), *([ENDPOINTS] if endpoints else [])]
