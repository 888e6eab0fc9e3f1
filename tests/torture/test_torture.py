"""The fault matrix in a small form: some faults at the moments that matter most."""

from __future__ import annotations

import pytest

from tests.torture.faults import FAULTS
from tests.torture.matrix import DRAINING, FIRST, MIDDLE, Torture
from tests.torture.world import world

CHOSEN = ("backend killed", "server killed", "client killed", "PostgreSQL cut off", "client cut off")


@pytest.mark.timeout(300)
def test_every_read_is_whole_or_a_typed_error() -> None:
    faults = [fault for fault in FAULTS if fault.name in CHOSEN]
    with world() as made:
        cells = list(Torture(made, seed=7).run(1, faults, (FIRST, MIDDLE, DRAINING)))
    assert len(cells) == 15
    assert [cell for cell in cells if not cell.is_sound] == []
    assert sum(cell.outcomes["typed error"] for cell in cells) >= 5


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_whole_matrix() -> None:
    with world() as made:
        assert [cell for cell in Torture(made, seed=8).run(5) if not cell.is_sound] == []
