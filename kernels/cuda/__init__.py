"""The CUDA twin of the kernels: Numba kernels for the device, and the decoder that runs them."""

from kernels.cuda._cuda import SIMULATED, is_available
from kernels.cuda.batch import DeviceBatch
from kernels.cuda.decode import decode
from kernels.cuda.decoder import CudaDecoder
from kernels.cuda.geometry import Geometry
from kernels.cuda.memory import allocate, device_name
from kernels.cuda.scan import scan
from kernels.cuda.staged import StagedDecoder

__all__ = [
    "SIMULATED",
    "CudaDecoder",
    "DeviceBatch",
    "Geometry",
    "StagedDecoder",
    "allocate",
    "decode",
    "device_name",
    "is_available",
    "scan",
]
