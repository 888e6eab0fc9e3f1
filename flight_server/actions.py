"""The bodies of Flight's own actions, which pyarrow has no classes for.

``CancelFlightInfoRequest`` and ``RenewFlightEndpointRequest`` hold one message in field 1,
``CancelFlightInfoResult`` one enum in field 1 (Arrow's Flight.proto).  That is what BytesValue and
Int32Value of protobuf look like on the wire.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from google.protobuf.message import DecodeError as ProtobufError
from google.protobuf.wrappers_pb2 import BytesValue, Int32Value
from pyarrow import flight

from kernels.errors import RequestError

CANCEL = "CancelFlightInfo"
RENEW = "RenewFlightEndpoint"
CANCELLED = 1
NOT_CANCELLABLE = 3


def parse_cancel(body: bytes) -> flight.FlightInfo:
    """Return the FlightInfo of a CancelFlightInfoRequest."""
    return _parse(flight.FlightInfo, body)


def parse_renew(body: bytes) -> flight.FlightEndpoint:
    """Return the endpoint of a RenewFlightEndpointRequest."""
    return _parse(flight.FlightEndpoint, body)


def cancel_result(status: int) -> bytes:
    """Return a CancelFlightInfoResult."""
    return bytes(Int32Value(value=status).SerializeToString())


def _parse(kind: Any, body: bytes) -> Any:
    try:
        return kind.deserialize(BytesValue.FromString(body).value)
    except (ProtobufError, pa.ArrowException, ValueError) as failure:
        raise RequestError(f"the action's body holds no {kind.__name__}") from failure
