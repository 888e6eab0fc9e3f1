"""What ``info`` says of GPUs: those that are there, what is installed for them, and what is missing."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from kernels.backend import gpus_present
from kernels.errors import PgflightError
from transport.device.cuda import cuda

PACKAGES = {
    "cuda-bindings": "calls of the CUDA runtime",
    "cupy-cuda13x": "arrays in GPU memory",
    "numba-cuda": "the kernels",
    "rmm-cu13": "a pool of GPU memory; without it CuPy's own serves",
    "kvikio-cu13": "files read into GPU memory; without it they pass through the host",
}
EXTRA = "pip install 'pgflight-server[cuda13]'"
MIB = 1 << 20


def gpu_facts() -> dict[str, Any]:
    """Return the facts, ready for JSON.  Looking for devices starts CUDA only where there is one."""
    versions = {name: _version(name) for name in PACKAGES}
    missing = [f"{name} ({PACKAGES[name]})" for name, version in versions.items() if version is None]
    facts: dict[str, Any] = {"devices": [], "driver": None}
    if not gpus_present():
        facts["problem"] = "no NVIDIA GPU is present"
    else:
        try:
            facts |= _devices()
        except PgflightError as failure:
            facts["problem"] = str(failure)
    facts |= {name: version or "missing" for name, version in versions.items()}
    if missing:
        facts["missing"] = f"{'; '.join(missing)}: {EXTRA}"
    return facts


def _devices() -> dict[str, Any]:
    api = cuda()
    devices = []
    for gpu in api.gpus():
        free, total = api.memory(gpu.ordinal)
        devices.append(f"{gpu.ordinal}: {gpu.name}, {free // MIB} of {total // MIB} MiB free, {gpu.uuid}")
    major, minor = divmod(api.driver_version() // 10, 100)
    return {"devices": devices, "driver": f"CUDA {major}.{minor}"}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
