"""Numba as the host kernels use it: two decorators, one cache directory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
from platformdirs import user_cache_path

_F = TypeVar("_F", bound=Callable[..., object])


def cache_directory() -> Path:
    """Return the directory of compiled kernels for exactly these sources.

    Numba's own cache looks at the file of the compiled function alone and would keep serving machine code with
    an older version of an inlined function from another module; the digest of all sources closes that hole.
    """
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for source in sorted(package.rglob("*.py")):
        digest.update(source.read_bytes())
    root = os.environ.get("NUMBA_CACHE_DIR")
    base = Path(root) if root else user_cache_path("pgflight", ensure_exists=False)
    return base / f"kernels-{digest.hexdigest()[:16]}"


config: Any = numba.config  # its settings are made at import, by name
config.CACHE_DIR = str(cache_directory())


def njit(function: _F) -> _F:
    """Compile `function` for the host: no Python, no GIL, kept on disk."""
    compiled: Any = numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    typed: _F = compiled
    return typed


def inline(function: _F) -> _F:
    """Compile a leaf function that only other kernels call."""
    compiled: Any = numba.njit(nogil=True, error_model="numpy")(function)
    typed: _F = compiled
    return typed
