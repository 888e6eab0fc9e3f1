"""The server's slabs in this process: each is opened once, however many batches and readers lie in it."""

import threading
from dataclasses import dataclass

from pgflight.device.cuda import Cuda
from pgflight.device.descriptor import Descriptor
from pgflight.device.errors import DescriptorError

CUDA_MEMORY = 2
"""``ARROW_DEVICE_CUDA``"""


@dataclass(frozen=True)
class Slab:
    """A slab as this process sees it."""

    address: int
    size_bytes: int
    ordinal: int
    kind: int = CUDA_MEMORY


@dataclass
class _Opened:
    slab: Slab
    users: int = 0


class Mappings:
    """The slabs that a process has opened. Safe to share between threads."""

    def __init__(self) -> None:
        self._opened: dict[bytes, _Opened] = {}
        self._lock = threading.Lock()

    def open(self, cuda: Cuda, described: Descriptor) -> Slab:
        """Map a slab, or count one more user of it.

        Raises
        ------
        GpuNotVisibleError
            It lies on a GPU that this process does not see.
        DescriptorError
            It is smaller than the server says.
        DeviceError
            CUDA refuses.
        """
        ordinal = cuda.ordinal(described.gpu)
        with self._lock:
            opened = self._opened.get(described.remote_handle)
            if opened is None:
                opened = self._opened[described.remote_handle] = _Opened(_map(cuda, described, ordinal))
            if (opened.slab.size_bytes, opened.slab.ordinal) != (described.slab_bytes, ordinal):
                raise DescriptorError("the server describes one slab in two ways")
            opened.users += 1
            return opened.slab

    def close(self, cuda: Cuda, handle: bytes) -> None:
        """Count one user less of a slab; unmap it with the last."""
        with self._lock:
            opened = self._opened[handle]
            opened.users -= 1
            if not opened.users:
                del self._opened[handle]
                cuda.close(opened.slab.address, opened.slab.ordinal)

    def __len__(self) -> int:
        return len(self._opened)


MAPPINGS = Mappings()
"""This process's."""


def _map(cuda: Cuda, described: Descriptor, ordinal: int) -> Slab:
    address = cuda.open(described.remote_handle, ordinal)
    base, size_bytes = cuda.extent(address, ordinal)
    if address + described.slab_bytes > base + size_bytes:
        cuda.close(address, ordinal)
        raise DescriptorError(
            f"the slab has {base + size_bytes - address} bytes, and not {described.slab_bytes} as the server says"
        )
    return Slab(address, described.slab_bytes, ordinal)
