"""Broken bytes: kernels and oracle agree, and no byte outside the lent memory is touched.

The fuzzers are processes of their own: a read behind the block or a write behind the arena ends them by SIGSEGV.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kernels.layout import WIRE_PAD_BYTES
from tests.kernels.guarded import GuardedPool, Slab, exact_block

ROOT = Path(__file__).parents[2]
REPLIES = 20_000
BLOCKS = 300_000
NESTED_BLOCKS = 50_000
LONG_REPLIES = 1_000_000
LONG_BLOCKS = 50_000_000
TAIL = 3000


def run(module: str, *arguments: int | str, timeout_s: float) -> None:
    """Run a fuzzer to its end."""
    command = [sys.executable, "-W", "error", "-m", f"tests.kernels.{module}", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, f"rc {done.returncode}\n{done.stdout[-TAIL:]}\n{done.stderr[-TAIL:]}"


def test_broken_replies() -> None:
    """Whole replies with all kinds of damage, in blocks of all sizes."""
    run("fuzz_replies", REPLIES, 1, timeout_s=150)


def test_broken_blocks() -> None:
    """Blocks of rows, in a compiled loop."""
    run("fuzz_compiled", BLOCKS, 1, timeout_s=150)


def test_broken_blocks_for_the_cuda_twin() -> None:
    """The device functions, compiled for the CPU."""
    run("fuzz_compiled", BLOCKS, 1, "cuda", timeout_s=170)


def test_broken_nested_values() -> None:
    """Arrays, composites, ranges and maps of each other; scratch memory ends at a page as well."""
    run("fuzz_nested", BLOCKS, 1, timeout_s=150)


def test_broken_nested_values_for_the_cuda_twin() -> None:
    """The device functions, compiled for the CPU, find what the host's do, to the byte."""
    run("fuzz_nested", NESTED_BLOCKS, 2, "cuda", timeout_s=170)


def test_text_for_the_cuda_twin() -> None:
    run("text_compiled", timeout_s=170)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [2, 3])
def test_many_broken_replies(seed: int) -> None:
    run("fuzz_replies", LONG_REPLIES, seed, timeout_s=3600)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [2, 3])
def test_many_broken_nested_values(seed: int) -> None:
    run("fuzz_nested", LONG_BLOCKS, seed, timeout_s=3600)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [2, 3])
def test_many_broken_blocks(seed: int) -> None:
    run("fuzz_compiled", LONG_BLOCKS, seed, timeout_s=3600)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [2, 3])
def test_many_broken_blocks_for_the_cuda_twin(seed: int) -> None:
    run("fuzz_compiled", LONG_BLOCKS, seed, "cuda", timeout_s=3600)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [2, 3])
def test_many_broken_nested_values_for_the_cuda_twin(seed: int) -> None:
    run("fuzz_nested", LONG_BLOCKS // 5, seed, "cuda", timeout_s=3600)


def test_the_guard_page_kills() -> None:
    """The proof above is worth nothing if the page behind a slab could be read."""
    script = (
        "import ctypes, numpy as np\n"
        "from tests.kernels.guarded import Slab\n"
        "slab = Slab(100)\n"
        "last = slab.bytes.ctypes.data + slab.bytes.size\n"
        "assert ctypes.string_at(last - 1, 1) == b'\\0'\n"
        "ctypes.string_at(last, 1)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False)
    assert done.returncode == -11


def test_the_mark_is_watched() -> None:
    memory = GuardedPool(4096)
    region = memory.allocate(64)
    assert region.array.size == 64
    region._slab.bytes[-65] = 0
    del region
    assert memory.damaged == 1


def test_a_block_ends_at_the_page() -> None:
    slab = Slab(1000)
    block = exact_block(slab, b"abc", bytes(WIRE_PAD_BYTES))
    assert block.size == 3 + WIRE_PAD_BYTES
    assert np.shares_memory(block, slab.bytes[-1:])
    assert bytes(block[:3]) == b"abc"
