"""Overload and shutdown in a small form; how fast is for the scoreboard."""

from __future__ import annotations

from tests.torture.overload.calls import METADATA, REFUSED
from tests.torture.overload.report import FREE, FULL, run
from tests.torture.overload.shutdowns import CLIENTS


def test_a_full_server_answers_or_refuses_and_stops() -> None:
    report = run(calls=3, shutdowns=1)
    for call in report.calls[FREE]:
        assert call.outcomes == {"answered": 3}, call.name
    for call in report.calls[FULL]:
        expected = "answered" if call.name in METADATA else REFUSED
        assert call.outcomes == {expected: 3}, call.name
    assert [(end.clients, end.status) for end in report.shutdowns] == [(CLIENTS[0], 0)]
