"""How often somebody may be wrong: a budget per name and one for all, in bounded memory."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass

from kernels.errors import OverloadedError


@dataclass(frozen=True, slots=True)
class Budget:
    """So many failures at once, and so many more as time passes.

    Parameters
    ----------
    burst : float
    per_s : float
        Returned each second.
    """

    burst: float
    per_s: float


PER_NAME = Budget(10, 0.2)
FOR_ALL = Budget(100, 10.0)
MAX_NAMES = 10_000


class Throttle:
    """Spends a failure before each attempt, and gives it back where the attempt was no failure.

    Thread-safe: attempts under way count as failures, so many at once are no way around the limit.

    Parameters
    ----------
    per_name, for_all : Budget
    max_names : int
        Names remembered at most; those not heard of for longest are forgotten.
    """

    def __init__(self, per_name: Budget = PER_NAME, for_all: Budget = FOR_ALL, max_names: int = MAX_NAMES) -> None:
        self._per_name, self._for_all, self._max_names = per_name, for_all, max_names
        self._names: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._all = (for_all.burst, time.monotonic())
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._names)

    def spend(self, name: str) -> None:
        """Allow an attempt.

        Raises
        ------
        OverloadedError
            There were too many failures: this one is not tried, right or wrong.
        """
        with self._lock:
            mine, ours = self._left(name), self._refilled(self._all, self._for_all)
            if mine < 1 or ours < 1:
                raise OverloadedError("too many failed logins: try again in a few seconds")
            self._keep(name, mine - 1)
            self._all = (ours - 1, time.monotonic())

    def give_back(self, name: str) -> None:
        """Undo `spend`: the attempt was no failure."""
        with self._lock:
            mine, ours = self._left(name), self._refilled(self._all, self._for_all)
            self._keep(name, min(self._per_name.burst, mine + 1))
            self._all = (min(self._for_all.burst, ours + 1), time.monotonic())

    def _left(self, name: str) -> float:
        known = self._names.get(name)
        return self._per_name.burst if known is None else self._refilled(known, self._per_name)

    def _keep(self, name: str, left: float) -> None:
        self._names[name] = (left, time.monotonic())
        self._names.move_to_end(name)
        while len(self._names) > self._max_names:
            self._names.popitem(last=False)

    @staticmethod
    def _refilled(known: tuple[float, float], budget: Budget) -> float:
        left, at = known
        return min(budget.burst, left + (time.monotonic() - at) * budget.per_s)
