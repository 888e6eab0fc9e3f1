"""Every kernel compiles for the GPUs that are served, without one at hand: to PTX, and on to their own code."""

from __future__ import annotations

import importlib
import re
from types import SimpleNamespace
from typing import Any

import numba
import pytest
from numba import types

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
pytest.importorskip("cupy", reason="CuPy is not installed")
if numba.config.ENABLE_CUDASIM:
    pytest.skip("the simulator compiles nothing", allow_module_level=True)

cuda: Any = importlib.import_module("numba.cuda")
dispatcher: Any = importlib.import_module("numba.cuda.dispatcher")
nvjitlink: Any = importlib.import_module("cuda.bindings.nvjitlink")
FILES = [importlib.import_module(f"kernels.cuda.{name}") for name in ("segments", "rows", "parts")]

NUMBER, WORDS, TABLE, LONGS = types.int64, types.uint64[::1], types.uint32[:, ::1], types.int64[::1]
PLACES = types.uint32[::1]
SIGNATURES = {
    "enter_kernel": (WORDS, *[NUMBER] * 7, TABLE),
    "prove_kernel": (NUMBER, NUMBER, TABLE, LONGS),
    "emit_kernel": (WORDS, *[NUMBER] * 6, TABLE, TABLE, LONGS),
    "rows_kernel": (WORDS, TABLE, *[NUMBER] * 3, LONGS, LONGS, PLACES),
    "sums_kernel": (NUMBER, LONGS, LONGS),
    "gather_kernel": (WORDS, *[NUMBER] * 2, LONGS, LONGS, PLACES),
    "vectors_kernel": (WORDS, NUMBER, LONGS, LONGS, PLACES),
    "locate_kernel": (WORDS, TABLE, *[NUMBER] * 3, LONGS, PLACES),
    "survey_kernel": (WORDS, *[NUMBER] * 3, LONGS, PLACES),
    "offsets_kernel": (*[NUMBER] * 2, LONGS, PLACES),
    "parts_kernel": (WORDS, *[NUMBER] * 2, LONGS, LONGS, PLACES),
}
"""What kernels/cuda/scan.py, decode.py and nested.py launch them with."""
KERNELS = {
    name: kernel for file in FILES for name, kernel in vars(file).items() if isinstance(kernel, dispatcher.CUDADispatcher)
    and name.endswith("_kernel")
}  # fmt: skip
ARCHITECTURES = ((7, 5), (8, 0), (9, 0), (10, 0))


def test_no_kernel_is_forgotten() -> None:
    assert KERNELS.keys() == SIGNATURES.keys()


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda cc: f"sm_{cc[0]}{cc[1]}")
@pytest.mark.parametrize("name", SIGNATURES)
def test_compiles(name: str, architecture: tuple[int, int], monkeypatch) -> None:
    """And nothing in it is a float, which mixed signed and unsigned integers would become."""
    device = SimpleNamespace(compute_capability=architecture)
    monkeypatch.setattr(dispatcher, "get_current_device", lambda: device)
    signature = types.void(*SIGNATURES[name])
    ptx, _ = cuda.compile(
        KERNELS[name].py_func, signature, cc=architecture, device=False, abi="numba", output="ptx"
    )
    assert ".visible .entry" in ptx
    assert re.findall(r"\b[a-z]+[.\w]*\.f(?:16|32|64)\b", ptx) == []
    linker = nvjitlink.create(2, [f"-arch=sm_{architecture[0]}{architecture[1]}", "-verbose"])
    nvjitlink.add_data(linker, nvjitlink.InputType.PTX, ptx.encode(), len(ptx), name)
    nvjitlink.complete(linker)
    assert nvjitlink.get_linked_cubin_size(linker) > 0
    told = bytearray(nvjitlink.get_info_log_size(linker))
    nvjitlink.get_info_log(linker, told)
    nvjitlink.destroy(linker)
    assert b"0 bytes spill stores" in told
