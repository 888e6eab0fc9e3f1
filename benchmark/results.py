"""What a contest came to: samples, their medians, and the ratios to the floors; to JSON and back."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from benchmark.contestants import COPY_FLOOR, FLOORS
from benchmark.measure import Sample


@dataclass(frozen=True)
class Entry:
    """One contestant's figures over one data set.

    Attributes
    ----------
    name, title, group
        As in `benchmark.contestants`.
    streams
        How many it read by.
    samples
        One for every round.
    differs
        Columns whose values are not those of the reference; None where there is nothing to compare.
    """

    name: str
    title: str
    group: str
    streams: int
    samples: Sequence[Sample]
    differs: Sequence[str] | None

    @property
    def median(self) -> Sample:
        """The median of every figure by itself."""
        medians: dict[str, Any] = {}
        for field in fields(Sample):
            values = [getattr(sample, field.name) for sample in self.samples]
            medians[field.name] = None if None in values else statistics.median(values)
        return Sample(**medians)

    @classmethod
    def from_json(cls, parts: Mapping[str, Any]) -> Entry:
        """Read an entry of `DatasetResult.to_json`."""
        plain = {field.name: parts[field.name] for field in fields(cls) if field.name != "samples"}
        return cls(**plain, samples=[Sample(**sample) for sample in parts["samples"]])

    @property
    def range_s(self) -> tuple[float, float]:
        """The fastest and the slowest round."""
        seconds = [sample.seconds for sample in self.samples]
        return min(seconds), max(seconds)


@dataclass(frozen=True)
class Ratios:
    """Time as a multiple of a floor's time; None where that floor did not run.

    Attributes
    ----------
    copy, data_row
        Of the floors with as many streams.
    copy_single
        Of one stream of COPY, however many streams the contestant had.
    """

    copy: float | None
    data_row: float | None
    copy_single: float | None


@dataclass(frozen=True)
class DatasetResult:
    """A contest over one data set.

    Attributes
    ----------
    table, rows
        What was read.
    entries
        In the order they ran.
    absent
        Contestants that are not installed, and what is missing.
    failed
        Contestants that failed, and what they said.
    """

    table: str
    rows: int
    entries: Sequence[Entry]
    absent: Mapping[str, str]
    failed: Mapping[str, str]

    @property
    def wire_bytes(self) -> int:
        """Bytes of the table as one COPY stream, message framing included; 0 where that was not measured."""
        return next((int(entry.median.wire_bytes) for entry in self.entries if entry.name == COPY_FLOOR), 0)

    @property
    def compared(self) -> bool:
        """Whether everybody's values were compared with the reference's."""
        return any(entry.differs is not None for entry in self.entries)

    def seconds(self, name: str) -> float | None:
        """Return the median wall time of a contestant, None where it did not run."""
        return next((entry.median.seconds for entry in self.entries if entry.name == name), None)

    def ratios(self, entry: Entry) -> Ratios:
        """Return an entry's time as multiples of the floors'."""
        names = (*FLOORS[entry.streams > 1], COPY_FLOOR)
        floors = map(self.seconds, names)
        return Ratios(*(None if floor is None else entry.median.seconds / floor for floor in floors))

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON, with what follows from it."""
        written = asdict(self)
        for entry, parts in zip(self.entries, written["entries"], strict=True):
            parts["median"] = asdict(entry.median)
            parts["rows_per_s"] = self.rows / entry.median.seconds
            parts["wire_mb_per_s"] = self.wire_bytes / 1e6 / entry.median.seconds
            parts["ratios"] = asdict(self.ratios(entry))
        return {"wire_bytes": self.wire_bytes, **written}

    @classmethod
    def from_json(cls, parts: Mapping[str, Any]) -> DatasetResult:
        """Read what `to_json` wrote."""
        entries = [Entry.from_json(entry) for entry in parts["entries"]]
        return cls(parts["table"], parts["rows"], entries, parts["absent"], parts["failed"])
