"""A server within a limit on its memory, and what is said where there can be none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.memory import cgroup
from tests.torture.memory.cgroup import Files, NoCgroupError, memory_group
from tests.torture.memory.run import LIMIT_BYTES, run


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_many_clients_are_refused_and_the_server_lives() -> None:
    """Fails, and says why, where control groups cannot be made."""
    report = run(clients=500, seconds=30)
    assert report.problems == []
    assert report.outcomes["refused"] > 0
    assert report.peak_bytes <= LIMIT_BYTES


def test_without_control_groups_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "VERSIONS", (Files(tmp_path, "memory.max", "memory.peak", "memory.events"),))
    with pytest.raises(NoCgroupError, match="no memory controller"), memory_group(LIMIT_BYTES):
        pass
