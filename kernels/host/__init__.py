"""The CPU twin of the kernels: Numba, compiled once for all schemas and cached on disk."""

from kernels.host import encode
from kernels.host._jit import cache_directory
from kernels.host.decode import decode
from kernels.host.nested import decode_parts
from kernels.host.scan import scan
from kernels.host.survey import survey
from kernels.host.tuples import scan_tuples

__all__ = ["cache_directory", "decode", "decode_parts", "encode", "scan", "scan_tuples", "survey"]
