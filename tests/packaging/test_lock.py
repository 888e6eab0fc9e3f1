"""The lock files: exact, hashed, of nobody's registry, and all that the distributions ask for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {"requirements.lock": ("oidc",), "requirements-cuda13.lock": ("oidc", "cuda13")}
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def pins(name: str) -> list[tuple[Requirement, int]]:
    """Return what a lock file pins, each with the number of its hashes."""
    text = "\n".join(line for line in (ROOT / name).read_text().splitlines() if not line.startswith("#"))
    entries = text.replace("\\\n", " ").strip().splitlines()
    return [(Requirement(HASH.sub("", entry).strip()), len(HASH.findall(entry))) for entry in entries]


@pytest.fixture(params=EXTRAS)
def lock(request: pytest.FixtureRequest) -> str:
    return request.param


def test_pins_are_exact_and_hashed(lock: str) -> None:
    found = pins(lock)
    assert len(found) > 20
    for pin, hashes in found:
        assert [each.operator for each in pin.specifier] == ["=="], pin
        assert pin.url is None, pin
        assert hashes, f"{pin} has no hash"


def test_no_registry_is_named(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert not re.search(r"://|--(extra-)?index|--find-links|--trusted-host", text)
    assert "make lock" in text


@pytest.mark.parametrize("python", PYTHONS)
def test_the_distribution_is_satisfied(lock: str, python: str) -> None:
    extras = EXTRAS[lock]
    asked = [
        *PROJECT["dependencies"],
        *(each for name in extras for each in PROJECT["optional-dependencies"][name]),
    ]
    here = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    pinned = {
        canonicalize_name(pin.name): next(iter(pin.specifier)).version
        for pin, _ in pins(lock)
        if pin.marker is None or pin.marker.evaluate(here)
    }
    for text in asked:
        wanted = Requirement(text)
        version = pinned.get(canonicalize_name(wanted.name))
        assert version, f"{lock} lacks {wanted.name}: run make lock"
        assert wanted.specifier.contains(version), f"{lock} has {wanted.name} {version}, not {wanted.specifier}"


def test_both_locks_agree() -> None:
    plain, cuda = ({canonicalize_name(pin.name): pin.specifier for pin, _ in pins(name)} for name in EXTRAS)
    assert plain.items() <= cuda.items()
