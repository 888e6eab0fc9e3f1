"""Pieces of a range of integers, handed out and taken back: what a slab's sub-allocation is, without the slab."""

from __future__ import annotations

from bisect import bisect_right


class FreeList:
    """The free pieces of ``[0, size)``: the smallest that fits is cut, neighbours grow together again.

    Not thread-safe.

    Parameters
    ----------
    size : int
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.free = size
        """How much is free, in pieces or in one."""
        self._starts = [0] if size else []
        self._ends = [size] if size else []

    def take(self, size: int) -> int | None:
        """Return the start of a piece of `size`, None where no hole is so large.

        Raises
        ------
        ValueError
            `size` is not positive.
        """
        if size <= 0:
            raise ValueError(f"a piece of size {size}")
        holes = [(end - start, start) for start, end in zip(self._starts, self._ends, strict=True)]
        fitting = min((hole for hole in holes if hole[0] >= size), default=None)
        if fitting is None:
            return None
        start = fitting[1]
        at = bisect_right(self._starts, start) - 1
        if fitting[0] == size:
            del self._starts[at], self._ends[at]
        else:
            self._starts[at] = start + size
        self.free -= size
        return start

    def give_back(self, start: int, size: int) -> None:
        """Take a piece back, or a part of one.

        Raises
        ------
        ValueError
            Some of it was not taken.
        """
        end = start + size
        at = bisect_right(self._starts, start)
        after_hole = at == 0 or self._ends[at - 1] <= start
        before_hole = at == len(self._starts) or end <= self._starts[at]
        if size <= 0 or start < 0 or end > self.size or not (after_hole and before_hole):
            raise ValueError(f"[{start}, {end}) was not taken")
        self.free += size
        joins_left = at > 0 and self._ends[at - 1] == start
        joins_right = at < len(self._starts) and self._starts[at] == end
        if joins_left and joins_right:
            self._ends[at - 1] = self._ends[at]
            del self._starts[at], self._ends[at]
        elif joins_left:
            self._ends[at - 1] = end
        elif joins_right:
            self._starts[at] = start
        else:
            self._starts.insert(at, start)
            self._ends.insert(at, end)
