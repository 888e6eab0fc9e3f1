"""A process of soaking clients: ``python -m tests.torture.soak.clients URI PARTS CLIENTS SEED STALL_S``.

It works until its standard input ends, and says every second what it has done since; who kills it loses one line.
"""

from __future__ import annotations

import json
import random
import sys
import threading
from collections import Counter

from tests.torture.soak.data import Part
from tests.torture.soak.work import ROUNDS, connected

TELL_S = 1.0


class Clients:
    """Threads that work, and what they have done.

    Parameters
    ----------
    uri, parts, stall_s
        As for `tests.torture.soak.work`.
    """

    def __init__(self, uri: str, parts: list[Part], stall_s: float) -> None:
        self._uri, self._parts, self._stall_s = uri, parts, stall_s
        self._lock = threading.Lock()
        self._done: Counter[str] = Counter()
        self._wrong: list[str] = []
        self.stopping = threading.Event()

    def run(self, seed: int) -> None:
        """Work until it is time to stop."""
        source = random.Random(seed)
        while not self.stopping.is_set():
            try:
                with connected(self._uri, self._parts, source, self.stopping, self._stall_s) as work:
                    for _ in range(ROUNDS):
                        if not self.stopping.is_set():
                            self._count(*work.once())
            except Exception as failure:  # whatever it is, it is what a client got
                with self._lock:
                    self._wrong.append(f"{type(failure).__name__}: {failure}"[:400])

    def told(self) -> str:
        """Return a line about what was done since the last one."""
        with self._lock:
            done, wrong = self._done, self._wrong
            self._done, self._wrong = Counter(), []
        return json.dumps({"done": done, "wrong": wrong})

    def _count(self, kind: str, outcome: str) -> None:
        with self._lock:
            self._done[f"{kind}: {outcome}"] += 1


def main(uri: str, parts: str, clients: str, seed: str, stall_s: str) -> None:
    group = Clients(uri, [Part(*part) for part in json.loads(parts)], float(stall_s))
    threads = [threading.Thread(target=group.run, args=(int(seed) * 1000 + n,)) for n in range(int(clients))]
    for thread in threads:
        thread.start()

    def follow() -> None:
        sys.stdin.read()
        group.stopping.set()

    threading.Thread(target=follow, daemon=True).start()
    while not group.stopping.wait(TELL_S):
        print(group.told(), flush=True)
    for thread in threads:
        thread.join()
    print(group.told(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
