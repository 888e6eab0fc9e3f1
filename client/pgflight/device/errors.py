"""Why there are no device batches here, one class for each cause."""

import pyarrow as pa


class DeviceError(pa.ArrowException):  # type: ignore[misc]  # pyarrow has no types
    """Base of all errors about batches in GPU memory."""


class OtherHostError(DeviceError):
    """The server runs on another host: GPU memory is shared within one host only."""


class OtherNamespaceError(OtherHostError):
    """The server runs in another container (PID namespace), which CUDA IPC does not cross."""


class OtherUserError(DeviceError):
    """The server runs as another user: GPU memory is shared with its own user only."""


class NoGpuError(DeviceError):
    """This process cannot use CUDA: no driver, no device, or a package is missing."""


class GpuNotVisibleError(NoGpuError):
    """The batch lies on a GPU that this process does not see."""


class VersionError(DeviceError):
    """Server and client speak different versions of the protocol of device batches."""


class DescriptorError(DeviceError, pa.ArrowInvalid):  # type: ignore[misc]
    """What the server says about a batch cannot be true: nothing of it is read."""


class LeaseError(DeviceError):
    """There is no lease: the connection to the server is refused, closed or lost, or the batch was released."""


BY_REASON = {
    "version": VersionError,
    "host": OtherHostError,
    "namespace": OtherNamespaceError,
    "user": OtherUserError,
}
"""The server's words for why it refuses; any other is a :class:`LeaseError`."""
