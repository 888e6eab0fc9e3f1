"""Query results in GPU memory, read in place: for clients on the server's host (``pgflight[cuda13]``)."""

from pgflight.device.batch import DeviceBatch
from pgflight.device.column import DeviceArray, DeviceColumn
from pgflight.device.errors import (
    DescriptorError,
    DeviceError,
    GpuNotVisibleError,
    LeaseError,
    NoGpuError,
    OtherHostError,
    OtherNamespaceError,
    OtherUserError,
    VersionError,
)
from pgflight.device.lease import LeaseConnection, LeaseConnections
from pgflight.device.stream import LEASE_HEADER, DeviceStream

__all__ = [
    "LEASE_HEADER",
    "DescriptorError",
    "DeviceArray",
    "DeviceBatch",
    "DeviceColumn",
    "DeviceError",
    "DeviceStream",
    "GpuNotVisibleError",
    "LeaseConnection",
    "LeaseConnections",
    "LeaseError",
    "NoGpuError",
    "OtherHostError",
    "OtherNamespaceError",
    "OtherUserError",
    "VersionError",
]
