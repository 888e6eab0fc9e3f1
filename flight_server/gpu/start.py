"""Bringing the GPUs up: at once where they are asked for, in the background where they only happen to be there."""

from __future__ import annotations

import threading
from typing import Any

import structlog

from flight_server.gpu.decoding import GpuDecoding, GpuOptions, Gpus
from flight_server.gpu.lending import GpuSide, Lending, LendingOptions
from kernels.backend import CudaBackend, select_backend, warm_up
from kernels.errors import OverloadedError, PgflightError, RequestError
from transport.device.cuda import cuda

log = structlog.get_logger("pgflight")


def bring_up(backend: CudaBackend, options: GpuOptions, lending: LendingOptions) -> GpuSide:
    """Compile or load the kernels, and take the memory.

    Raises
    ------
    PgflightError
        A GPU cannot be used as the options say.
    """
    seconds = warm_up(backend)
    side = GpuSide(Gpus(backend, cuda(), options), lending)
    log.info("GPU ready", backend=backend.name, reason=backend.reason, seconds=round(seconds, 3))
    return side


class LateGpuSide:
    """The GPUs of a server that was not told to use them, and listens before their kernels are compiled.

    Parameters
    ----------
    options : GpuOptions
    lending : LendingOptions
    """

    def __init__(self, options: GpuOptions, lending: LendingOptions) -> None:
        self._options = options
        self._lending = lending
        self._side: GpuSide | None = None
        self._problem = ""
        self._thread = threading.Thread(target=self._start, name="gpu-start", daemon=True)
        self._thread.start()

    def fetched(self) -> GpuDecoding:
        """Return the decoding whose batches come back to the host.

        Raises
        ------
        OverloadedError
            The kernels are still being compiled.
        RequestError
            The GPUs cannot be used.
        """
        return self._ready().fetched()

    def lent(self) -> Lending:
        """Return the decoding whose batches stay on the GPU; raises as `fetched`."""
        return self._ready().lent()

    def info(self) -> dict[str, Any]:
        """Return what ``info`` shows of the GPUs."""
        if self._side is None:
            return {"problem": self._problem or "starting"}
        return self._side.info()

    def close(self) -> None:
        """Lend nothing more."""
        if self._side is not None:
            self._side.close()

    def _start(self) -> None:
        try:
            self._side = bring_up(select_backend("gpu"), self._options, self._lending)
        except PgflightError as failure:
            self._problem = str(failure)
            log.warning("the GPUs are not used", error=self._problem)
        except Exception as failure:
            self._problem = f"{type(failure).__name__}: {failure}"
            log.exception("the GPUs are not used")

    def _ready(self) -> GpuSide:
        if self._side is not None:
            return self._side
        if self._problem:
            raise RequestError(f"the GPUs of this server cannot be used: {self._problem}")
        raise OverloadedError("the GPU's kernels are still being compiled: try again in a minute")
