"""Pieces of integers: none overlap, none get lost, neighbours grow together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from transport.device.freelist import FreeList

SIZE = 64


class Pieces(RuleBasedStateMachine):
    """Against a plain set of the integers that are taken."""

    pieces = Bundle("pieces")

    def __init__(self) -> None:
        super().__init__()
        self.list = FreeList(SIZE)
        self.taken: set[int] = set()

    @rule(target=pieces, size=st.integers(1, SIZE + 1))
    def take(self, size: int) -> object:
        start = self.list.take(size)
        if start is None:
            assert not any(self.fits(at, size) for at in range(SIZE))
            return multiple()
        piece = set(range(start, start + size))
        assert self.fits(start, size)
        self.taken |= piece
        return (start, size)

    @rule(piece=consumes(pieces))
    def give_back(self, piece: tuple[int, int]) -> None:
        start, size = piece
        self.list.give_back(start, size)
        self.taken -= set(range(start, start + size))
        with pytest.raises(ValueError, match="was not taken"):
            self.list.give_back(start, size)

    @rule(target=pieces, piece=consumes(pieces), share=st.floats(0.01, 0.99))
    def shrink(self, piece: tuple[int, int], share: float) -> object:
        start, size = piece
        kept = max(1, int(size * share))
        if kept == size:
            return piece
        self.list.give_back(start + kept, size - kept)
        self.taken -= set(range(start + kept, start + size))
        return (start, kept)

    @rule(start=st.integers(-2, SIZE + 2), size=st.integers(-1, SIZE + 2))
    def give_back_what_is_not_taken(self, start: int, size: int) -> None:
        if size > 0 and set(range(start, start + size)) <= self.taken:
            return
        with pytest.raises(ValueError, match="was not taken"):
            self.list.give_back(start, size)

    @invariant()
    def nothing_is_lost(self) -> None:
        assert self.list.free == SIZE - len(self.taken)

    def fits(self, start: int, size: int) -> bool:
        piece = set(range(start, start + size))
        return start + size <= SIZE and not piece & self.taken


TestPieces = Pieces.TestCase


@given(st.permutations(range(16)))
def test_all_given_back_is_one_piece_again(order: list[int]) -> None:
    pieces = FreeList(SIZE)
    starts = [pieces.take(4) for _ in range(16)]
    assert sorted(starts) == list(range(0, SIZE, 4))
    assert pieces.take(1) is None
    for number in order:
        pieces.give_back(4 * number, 4)
    assert pieces.take(SIZE) == 0


def test_the_smallest_hole_that_fits_is_used() -> None:
    pieces = FreeList(SIZE)
    large, _, small, _ = (pieces.take(size) for size in (10, 1, 4, SIZE - 15))
    pieces.give_back(large, 10)
    pieces.give_back(small, 4)
    assert pieces.take(3) == small
    assert pieces.take(10) == large


@pytest.mark.parametrize("size", [0, -1])
def test_a_piece_has_a_size(size: int) -> None:
    with pytest.raises(ValueError, match="a piece of size"):
        FreeList(SIZE).take(size)
