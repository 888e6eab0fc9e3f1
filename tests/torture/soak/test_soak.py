"""The soak in a small form: everything is whole and nothing is left, though clients cancel, stall and die."""

from __future__ import annotations

import json
import math

import pytest

from tests.torture.soak.run import Plan, soak
from tests.torture.soak.samples import Sample, left, slope_mib_per_h

KINDS = {"table", "statement", "flight_sql", "prepared", "ingest", "metadata", "cancel", "stall"}
QUIET = Sample(0.0, 100.0, 10.0, 10, 10, 0, 0, 0, 0, 0)


def test_a_short_soak() -> None:
    report = soak(Plan(5.0, clients=6, processes=2, hurt_every_s=3.0, sample_every_s=0.8, least=20))
    assert not report.problems, "\n".join(report.problems)
    assert len(report.samples) >= 5
    assert {name.partition(":")[0] for name in report.done} <= KINDS
    assert report.done["table: complete"] + report.done["statement: complete"] > 0
    assert json.loads(report.to_json())["problems"] == []


def test_growth_is_seen() -> None:
    samples = [Sample(at, 100 + 40 * at / 3600, 0, 0, 0, 0, 0, 0, 0, 0) for at in range(0, 7200, 10)]
    assert slope_mib_per_h(samples, 1800) == pytest.approx(40)
    assert math.isnan(slope_mib_per_h(samples[:2], 0))


def test_what_is_left_is_seen() -> None:
    assert left(QUIET, QUIET) == []
    now = Sample(9.0, 100.0, 10.0, 60, 90, 3, 1, 2, 1, 0)
    assert left(QUIET, now) == [
        "1 streams", "2 snapshots", "1 lent connections", "74 file descriptors", "50 threads",
    ]  # fmt: skip
