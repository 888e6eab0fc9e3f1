"""Is GPUDirect real here?  Where it is not, the answer says why, and the disk is measured all the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kernels.errors import ConfigError
from transport import direct_io
from transport.device import gds
from transport.device.cuda import cuda
from transport.device.gds import Finding, Verdict

HAS_GPU = bool(list(Path("/dev").glob("nvidia[0-9]*")))
COMMAND = (sys.executable, "-m", "flight_server", "check-gds")


def test_the_command_says_what_there_is(tmp_path: Path) -> None:
    words = [*COMMAND, "--dir", str(tmp_path), "--size-mib", "8"]
    done = subprocess.run([*words, "--json"], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    findings = {finding["name"]: finding for finding in told["findings"]}
    assert set(findings) == {"GPU", "nvidia-fs", "kvikio", "file system", "O_DIRECT", "cuFile"}
    assert findings["GPU"]["there"] is HAS_GPU
    assert told["real"] is all(finding["there"] for finding in told["findings"])
    assert all(rate["gb_per_s"] > 0 and rate["size_bytes"] == 8 << 20 for rate in told["rates"])
    names = [rate["name"] for rate in told["rates"]]
    assert "read, from the page cache" in names
    assert ("read, direct" in names) is findings["O_DIRECT"]["there"]
    assert list(tmp_path.iterdir()) == []
    if not HAS_GPU:
        assert "host" in told["falls_back_to"]
        assert any("CUDA cannot be used" in note or "cuFile" in note for note in told["notes"])


def test_people_read_it_too(tmp_path: Path) -> None:
    words = [*COMMAND, "--dir", str(tmp_path), "--size-mib", "4"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "200"})
    assert "GPUDirect Storage for" in done.stdout
    assert "GB/s" in done.stdout
    missing = subprocess.run(
        [*COMMAND, "--dir", str(tmp_path / "no")], capture_output=True, text=True, check=False
    )
    assert (missing.returncode, "cannot use" in missing.stderr) == (1, True)


def test_what_falls_back_to_what() -> None:
    names = ("GPU", "nvidia-fs", "kvikio")

    def verdict(*there: str) -> Verdict:
        return Verdict(tuple(Finding(name, name in there, "") for name in names))

    assert verdict(*names).real
    assert "nothing" in verdict(*names).falls_back_to
    assert "compatibility" in verdict("GPU", "kvikio").falls_back_to
    assert "host" in verdict("nvidia-fs").falls_back_to


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    size = 3 * direct_io.PIECE_BYTES
    direct = direct_io.takes_direct_io(tmp_path)
    assert direct_io.write(path, size, direct=direct).size_bytes == size == path.stat().st_size
    assert direct_io.read(path, size, direct=direct, threads=2).seconds > 0
    with pytest.raises(OSError, match="in part"):
        direct_io.read(path, size + direct_io.PIECE_BYTES, direct=direct)


def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot use"):
        gds.look(tmp_path / "missing")


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_GPU, reason="no GPU is present")
def test_files_into_gpu_memory(tmp_path: Path) -> None:
    rates = list(gds.measure(cuda(), 0, tmp_path, 64 << 20))
    assert {rate.name.split(",")[0] for rate in rates} == {"cuFile write", "cuFile read", "direct read"}
