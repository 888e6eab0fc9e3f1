"""Breaks payloads again and again, and keeps what was answered otherwise than it should be."""

from __future__ import annotations

import multiprocessing
import random
import traceback
from collections import Counter
from dataclasses import dataclass, field

from tests.torture.fuzz_wire.mutations import mutated
from tests.torture.fuzz_wire.parsers import outcome
from tests.torture.fuzz_wire.seeds import Seed, seeds

KEPT = 20
CHUNK = 5000


@dataclass
class Findings:
    """What came of so many payloads."""

    kinds: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    bad: dict[str, str] = field(default_factory=dict)
    """Payloads by what they did, one for each place in the code."""

    def add(self, other: Findings) -> None:
        """Take over another's."""
        self.kinds.update(other.kinds)
        self.outcomes.update(other.outcomes)
        self.bad = {**other.bad, **self.bad}


def payload(seed: int, number: int, sound: list[Seed]) -> tuple[Seed, bytes]:
    """Return one broken payload; the same numbers give the same."""
    source = random.Random(f"{seed}:{number}")
    chosen = source.choice(sound)
    return chosen, mutated(source, chosen.raw, [other.raw for other in sound])


def fuzz(count: int, seed: int, processes: int = 1) -> Findings:
    """Give so many broken payloads to the parsers."""
    chunks = [(seed, begin, min(begin + CHUNK, count)) for begin in range(0, count, CHUNK)]
    found = Findings()
    if processes == 1:
        for chunk in chunks:
            found.add(_chunk(*chunk))
        return found
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for part in pool.starmap(_chunk, chunks, chunksize=1):
            found.add(part)
    return found


def _chunk(seed: int, begin: int, end: int) -> Findings:
    found, sound = Findings(), seeds()
    for number in range(begin, end):
        chosen, raw = payload(seed, number, sound)
        found.kinds[chosen.kind] += 1
        try:
            found.outcomes[outcome(chosen, raw)] += 1
        except Exception as failure:  # whatever is not ours is a finding
            place = traceback.extract_tb(failure.__traceback__)[-1]
            found.outcomes["NOT TYPED"] += 1
            found.bad.setdefault(
                f"{type(failure).__name__} in {place.filename}:{place.lineno}: {failure}"[:300],
                f"{chosen.kind} {chosen.name} --case {seed} {number}: {raw[:300]!r}",
            )
    return found
