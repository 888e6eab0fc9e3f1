"""The transports side by side: floor, every transport that was asked for, and peers, in turn, values compared."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmark import worker
from benchmark.checksum import differences
from benchmark.contest import DifferentError
from benchmark.contestants import CHOSEN, COPIED, COPY_FLOOR, ON_DEVICE, PARALLEL, REFERENCE, USED, by_name
from benchmark.measure import Sample
from benchmark.server_log import ReadFacts, last_read
from benchmark.target import Target
from benchmark.worker import WorkerError

GB = 1e9
Progress = Callable[[str], None]


@dataclass(frozen=True)
class TransportEntry:
    """One way's figures; medians by themselves.

    Attributes
    ----------
    name
        A transport, a peer's name, or ``floor``.
    group
        ``floor``, ``pgflight`` or ``peer``.
    seconds, all_seconds
        Wall time from connecting to the last batch.
    client_cpu_s, server_cpu_s
    client_peak_bytes, server_peak_bytes
        Resident memory.
    wire_bytes
        Received from PostgreSQL; 0 where that is not known.
    differs
        Columns whose values are not the reference's; None where nothing was compared.
    read
        What the server says of the last read; None for others.
    """

    name: str
    group: str
    seconds: float
    all_seconds: Sequence[float]
    client_cpu_s: float
    server_cpu_s: float | None
    client_peak_bytes: int
    server_peak_bytes: int | None
    wire_bytes: int
    differs: Sequence[str] | None = None
    read: ReadFacts | None = None

    @property
    def server_cpu_s_per_gb(self) -> float | None:
        """The server's CPU time for each GB (10⁹ bytes) that it received."""
        return self.server_cpu_s / (self.wire_bytes / GB) if self.server_cpu_s and self.wire_bytes else None

    @classmethod
    def from_json(cls, parts: Mapping[str, Any]) -> TransportEntry:
        """Read what `TransportResult.to_json` wrote."""
        read = parts["read"]
        known = {name: value for name, value in parts.items() if name in cls.__dataclass_fields__}
        return cls(**{**known, "read": None if read is None else ReadFacts(**read)})


@dataclass(frozen=True)
class TransportResult:
    """One data set by all ways.

    Attributes
    ----------
    dataset, rows, streams, output
    entries
    absent
        What could not be had, and why.
    """

    dataset: str
    rows: int
    streams: int
    output: str
    entries: Sequence[TransportEntry]
    absent: Mapping[str, str]

    @property
    def floor_s(self) -> float:
        """Seconds of the floor."""
        return next(entry.seconds for entry in self.entries if entry.group == "floor")

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON, with what follows from it."""
        written = asdict(self)
        for entry, parts in zip(self.entries, written["entries"], strict=True):
            parts["ratio_to_floor"] = entry.seconds / self.floor_s
            parts["server_cpu_s_per_gb"] = entry.server_cpu_s_per_gb
        return written

    @classmethod
    def from_json(cls, parts: Mapping[str, Any]) -> TransportResult:
        """Read what `to_json` wrote."""
        entries = [TransportEntry.from_json(entry) for entry in parts["entries"]]
        return cls(parts["dataset"], parts["rows"], parts["streams"], parts["output"], entries, parts["absent"])


class TransportContest:
    """The reads of one data set.

    Parameters
    ----------
    target
        Its options go to every read of pgflight.
    dataset
        For people.
    transports, peers
        Names.
    output
        ``host``, ``cuda-ipc`` or ``device``.
    log
        The server's, as JSON.
    progress
    """

    def __init__(
        self,
        target: Target,
        dataset: str,
        transports: Sequence[str],
        peers: Sequence[str],
        output: str,
        log: Path,
        progress: Progress,
    ) -> None:
        self._target = target
        self._dataset = dataset
        self._ours = {"host": CHOSEN, "cuda-ipc": ON_DEVICE, "device": USED}[output]
        self._output = output
        self._log = log
        self._progress = progress
        self._floor = COPY_FLOOR + PARALLEL if target.streams > 1 else COPY_FLOOR
        self._ways = {"floor": "floor", **dict.fromkeys(transports, "pgflight"), **dict.fromkeys(peers, "peer")}
        self._samples: dict[str, list[Sample]] = defaultdict(list)
        self._reads: dict[str, ReadFacts] = {}
        self._differs: dict[str, list[str]] = {}
        self.absent: dict[str, str] = {
            name: f"{missing} is not installed" for name in peers if (missing := by_name(name).missing)
        }

    @property
    def ways(self) -> list[str]:
        """Who takes part."""
        return [name for name in self._ways if name not in self.absent]

    def verify(self) -> None:
        """Warm up, and compare values with those that psycopg reads, of large tables those of a sample.

        Raises
        ------
        DifferentError
            A transport's values differ.
        """
        sample = self._target.sample
        reference = worker.run(REFERENCE, replace(sample, server_pid=None), verify=True)
        for name in self.ways:
            if self._ways[name] == "floor":
                continue
            read = self._run(name, sample, verify=True)
            if read is None:
                continue
            self._differs[name] = found = differences(read, reference)
            if found and self._ways[name] == "pgflight":
                raise DifferentError(f"transport {name} and {REFERENCE} differ in {', '.join(found)}")

    def round(self) -> None:
        """Let everybody read once."""
        for name in self.ways:
            figures = self._run(name, self._target)
            if figures is not None:
                self._samples[name].append(Sample(**figures))
                if self._ways[name] == "pgflight":
                    self._reads[name] = last_read(self._log)

    def result(self) -> TransportResult:
        """Return what has been measured."""
        entries = [self._entry(name) for name in self.ways]
        target = self._target
        return TransportResult(self._dataset, target.rows, target.streams, self._output, entries, self.absent)

    def _run(self, name: str, target: Target, *, verify: bool = False) -> dict[str, Any] | None:
        """Let one read; what cannot be had is left out from then on, and why is told."""
        self._progress(name)
        group = self._ways[name]
        if group == "pgflight":
            target = replace(target, options={**target.options, "transport": name})
            contestant = COPIED.name if verify and self._ours is not CHOSEN else self._ours.name
        else:
            target = replace(target, server_pid=None)
            contestant = self._floor if group == "floor" else name
        try:
            return worker.run(contestant, target, verify=verify)
        except WorkerError as failure:
            if group == "floor":
                raise
            self.absent[name] = str(failure)
            return None

    def _entry(self, name: str) -> TransportEntry:
        samples, read = self._samples[name], self._reads.get(name)

        def median(field: str) -> Any:
            values = [getattr(sample, field) for sample in samples]
            return None if None in values else statistics.median(values)

        return TransportEntry(
            name=name,
            group=self._ways[name],
            seconds=median("seconds"),
            all_seconds=[sample.seconds for sample in samples],
            client_cpu_s=median("client_cpu_s"),
            server_cpu_s=median("server_cpu_s"),
            client_peak_bytes=median("client_peak_bytes"),
            server_peak_bytes=median("server_peak_bytes"),
            wire_bytes=read.wire_bytes if read else int(median("wire_bytes")),
            differs=self._differs.get(name),
            read=read,
        )
