"""What the server says of its reads: counters and stages, from its log."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class NoReadError(RuntimeError):
    """The server's log says nothing of a read that was made."""


@dataclass(frozen=True)
class ReadFacts:
    """One read, as the server saw it.

    Attributes
    ----------
    transport
    wire_bytes
        Received from PostgreSQL.
    seconds
    moved
        The transport's counters.
    stages
        Seconds on the clock and of the CPU, all streams together, by stage.
    """

    transport: str
    wire_bytes: int
    seconds: float
    moved: Mapping[str, int]
    stages: Mapping[str, Mapping[str, float]]


def last_read(log: Path) -> ReadFacts:
    """Return the last read that ended.

    Raises
    ------
    NoReadError
        There is none.
    """
    for text in reversed(log.read_text(errors="replace").splitlines()):
        if '"event": "read"' not in text and '"event":"read"' not in text:
            continue
        line: dict[str, Any] = json.loads(text)
        return ReadFacts(
            transport=line["transport"],
            wire_bytes=line["wire_bytes"],
            seconds=line["seconds"],
            moved=line["moved"],
            stages=line["stages"],
        )
    raise NoReadError(f"{log}: no read was logged")
