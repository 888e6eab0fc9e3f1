"""Without a GPU everything imports, and what needs one says so when it is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kernels.backend import gpus_present
from kernels.errors import ConfigError
from transport.device.cuda import Cuda

ROOT = Path(__file__).parents[3]
HEAVY = ("cuda.bindings", "cupy", "rmm", "nanoarrow", "torch", "pylibcudf", "cudf")


@pytest.mark.parametrize("folder", ["transport/device", "client/pgflight/device"])
def test_imports_bring_nothing_heavy(folder: str) -> None:
    top = ROOT / folder.removesuffix("/pgflight/device").removesuffix("transport/device")
    modules = [
        ".".join(path.relative_to(top).with_suffix("").parts) for path in sorted((ROOT / folder).glob("*.py"))
    ]
    assert len(modules) > 5
    code = f"import sys, importlib\nfor name in {modules!r}: importlib.import_module(name)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not [name for name in done.stdout.split() if name.startswith(HEAVY)]


@pytest.mark.skipif(bool(gpus_present()), reason="there is a GPU")
def test_no_gpu_is_an_error_that_says_so() -> None:
    with pytest.raises(ConfigError, match="CUDA cannot be used"):
        Cuda()


def test_a_missing_package_is_an_error_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(ConfigError, match=r"install pgflight-server\[cuda13\]"):
        Cuda()
