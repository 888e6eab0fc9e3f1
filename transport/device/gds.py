"""GPUDirect Storage: is it real here, and what do files into GPU memory give, by cuFile and through the host?"""

from __future__ import annotations

import ctypes
import importlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kernels.errors import ConfigError
from transport.device.cuda import Cuda
from transport.direct_io import PIECE_BYTES, Rate, scratch_file, takes_direct_io

FILE_SYSTEMS = frozenset(("ext4", "xfs", "lustre", "wekafs", "beegfs", "gpfs", "nfs", "nfs4"))
"""What NVIDIA's documentation names as fit for GPUDirect Storage; ext4 in its ordered journal mode."""
TASKS = ((1, 4 << 20), (4, 4 << 20), (8, 16 << 20), (16, 16 << 20))
"""Threads and bytes a task, for cuFile."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that GPUDirect Storage needs.

    Parameters
    ----------
    name : str
    there : bool
    seen : str
        What was seen.
    remedy : str
        What would change it.
    """

    name: str
    there: bool
    seen: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether files reach GPU memory without passing through the host's.

    Parameters
    ----------
    findings : tuple of Finding
    """

    findings: tuple[Finding, ...]

    @property
    def real(self) -> bool:
        """Whether all that it needs is there."""
        return all(finding.there for finding in self.findings)

    @property
    def falls_back_to(self) -> str:
        """What transport=gds does here."""
        if self.real:
            return "nothing: the disk writes into GPU memory"
        if all(finding.there for finding in self.findings if finding.name in ("GPU", "kvikio")):
            return "kvikio's compatibility mode: reads into pinned host memory, and a copy to the GPU"
        return "the host: spool files are read into blocks of host memory and decoded there, or copied to the GPU"


def look(directory: Path) -> Verdict:
    """Look for everything that GPUDirect Storage needs.

    Raises
    ------
    ConfigError
        The directory cannot be used.
    """
    return Verdict((_gpu(), _kernel_module(), _kvikio(), _file_system(directory), _direct(directory), _cufile()))


def measure(cuda: Cuda, ordinal: int, directory: Path, size_bytes: int) -> Iterator[Rate]:
    """Measure files into GPU memory and out of it: through a pinned block, then by cuFile in several settings.

    Raises
    ------
    ConfigError
        kvikio is missing.
    """
    if find_spec("kvikio") is None or find_spec("cupy") is None:
        raise ConfigError("cuFile cannot be measured: pip install 'pgflight-server[cuda13]'")
    kvikio: Any = importlib.import_module("kvikio")
    cupy: Any = importlib.import_module("cupy")
    size = -(-size_bytes // PIECE_BYTES) * PIECE_BYTES
    with cupy.cuda.Device(ordinal), scratch_file(directory) as path:
        memory = cupy.random.default_rng(7).integers(0, 256, size, cupy.uint8)
        cupy.cuda.get_current_stream().synchronize()
        for threads, task_bytes in TASKS:
            with kvikio.defaults.set({"num_threads": threads, "task_size": task_bytes}):
                setting = f"{threads} threads, tasks of {task_bytes >> 20} MiB"
                yield _cufile_rate(kvikio, path, memory, "w", f"cuFile write, {setting}")
                yield _cufile_rate(kvikio, path, memory, "r", f"cuFile read, {setting}")
        yield _bounce(cuda, path, int(memory.data.ptr), ordinal, size)


def _cufile_rate(kvikio: Any, path: Path, memory: Any, mode: str, name: str) -> Rate:
    with kvikio.CuFile(str(path), mode) as file:
        started = time.perf_counter()
        count = (file.pwrite(memory) if mode == "w" else file.pread(memory)).get()
        if mode == "w":
            os.fsync(file.fileno())
        seconds = time.perf_counter() - started
    if count != memory.nbytes:
        raise ConfigError(f"cuFile moved {count} bytes of {memory.nbytes}")
    return Rate(name, count, seconds)


def _bounce(cuda: Cuda, path: Path, target: int, ordinal: int, size: int) -> Rate:
    """Read into one pinned block and copy it, piece by piece: the naive way."""
    pinned, stream = cuda.host_alloc(PIECE_BYTES), cuda.stream(ordinal)
    handle = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        view = _view(pinned)
        started = time.perf_counter()
        for at in range(0, size, PIECE_BYTES):
            os.preadv(handle, [view], at)
            cuda.copy_to_device(target + at, pinned, PIECE_BYTES, stream)
            cuda.synchronize(stream)
        return Rate("direct read, pinned block, copy", size, time.perf_counter() - started)
    finally:
        os.close(handle)
        cuda.destroy_stream(stream)
        cuda.host_free(pinned)


def _view(address: int) -> memoryview:
    return memoryview((ctypes.c_uint8 * PIECE_BYTES).from_address(address)).cast("B")


def _gpu() -> Finding:
    count = len(list(Path("/dev").glob("nvidia[0-9]*")))
    seen = f"{count} in /dev" if count else "none in /dev"
    return Finding("GPU", count > 0, seen, "run on a host with an NVIDIA GPU, or give the container its devices")


def _kernel_module() -> Finding:
    loaded = any(line.startswith("nvidia_fs ") for line in _text(Path("/proc/modules")).splitlines())
    version = _text(Path("/proc/driver/nvidia-fs/version")).strip()
    remedy = "install nvidia-fs (package nvidia-gds) on the host, and: modprobe nvidia-fs"
    return Finding("nvidia-fs", loaded, version or ("loaded" if loaded else "the module is not loaded"), remedy)


def _kvikio() -> Finding:
    spec = find_spec("kvikio")
    return Finding("kvikio", spec is not None, "installed" if spec else "not installed", "pip install kvikio-cu13")


def _file_system(directory: Path) -> Finding:
    kind, device = _mount(directory)
    remedy = f"set spool_dir to a directory on {' or '.join(sorted(FILE_SYSTEMS)[:3])} … on local NVMe"
    return Finding("file system", kind in FILE_SYSTEMS, f"{kind} on {device}", remedy)


def _direct(directory: Path) -> Finding:
    takes = takes_direct_io(directory)
    return Finding("O_DIRECT", takes, "taken" if takes else "refused", "choose another file system")


def _cufile() -> Finding:
    """Ask cuFile itself, which needs the driver's library."""
    remedy = "see the other findings; cuFile's log (cufile.log) says more"
    try:
        driver: Any = importlib.import_module("kvikio.cufile_driver")
        available = bool(driver.get("is_gds_available"))
    except (ImportError, OSError, RuntimeError, AttributeError) as failure:
        return Finding("cuFile", False, f"cannot be asked: {failure}", remedy)
    return Finding("cuFile", available, "says yes" if available else "says no", remedy)


def _mount(directory: Path) -> tuple[str, str]:
    """Return the file system's type and device, of the innermost mount above the directory."""
    place = directory.resolve()
    found = ("unknown", "unknown")
    deepest = -1
    for line in _text(Path("/proc/mounts")).splitlines():
        device, point, kind, *_ = line.split()
        above = Path(point.replace("\\040", " "))
        if place.is_relative_to(above) and len(above.parts) >= deepest:
            deepest, found = len(above.parts), (kind, device)
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
