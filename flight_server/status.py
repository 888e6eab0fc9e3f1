"""Our errors -> Flight errors, by one table; what a client may read of a failure, and nothing more."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import pyarrow as pa
import structlog
from pyarrow import flight

from flight_server.observe import metrics
from kernels.errors import (
    CancelledError,
    ConnectionLostError,
    DeadlineError,
    DecodeError,
    ForbiddenError,
    OutcomeUnknownError,
    OverloadedError,
    PgflightError,
    PostgresError,
    RequestError,
    SnapshotEndedError,
    TicketError,
    UnauthenticatedError,
    UnsupportedError,
    ValueRangeError,
)

log = structlog.get_logger("pgflight.server")

P = ParamSpec("P")
R = TypeVar("R")

STREAMING = "do_get"
GO_ON = (STREAMING, "start_call")
"""A call is counted once: where its batches end, or by its own method if it passed the middleware."""

MAX_TEXT = 1000
"""Characters; gRPC sends the text several times in trailers of at most 8 kB."""

KEPT_TAIL = 100
"""Characters kept of the end of a text that is cut: the SQLSTATE stands there."""

BY_CLASS: tuple[tuple[type[PgflightError], type[Exception]], ...] = (
    (SnapshotEndedError, pa.ArrowKeyError),
    (TicketError, flight.FlightUnauthorizedError),
    (UnsupportedError, pa.ArrowNotImplementedError),
    (RequestError, pa.ArrowInvalid),
    (UnauthenticatedError, flight.FlightUnauthenticatedError),
    (ForbiddenError, flight.FlightUnauthorizedError),
    (ValueRangeError, pa.ArrowInvalid),
    (DecodeError, flight.FlightInternalError),
    (OutcomeUnknownError, flight.FlightInternalError),  # not to be tried again without looking
    (ConnectionLostError, flight.FlightUnavailableError),
    (OverloadedError, flight.FlightUnavailableError),
    (DeadlineError, flight.FlightTimedOutError),
    (CancelledError, flight.FlightCancelledError),
)
"""Most specific first."""

BY_SQLSTATE: tuple[tuple[str, type[Exception]], ...] = (
    ("28", flight.FlightUnauthenticatedError),
    ("42501", flight.FlightUnauthorizedError),
    ("42P01", pa.ArrowKeyError),
    ("3F000", pa.ArrowKeyError),
    ("42", pa.ArrowInvalid),
    ("22", pa.ArrowInvalid),
    ("23", pa.ArrowInvalid),
    ("3B", pa.ArrowInvalid),
    ("21", pa.ArrowInvalid),
    ("0A", pa.ArrowInvalid),
    ("25006", pa.ArrowInvalid),
    ("54", pa.ArrowInvalid),
    ("57014", flight.FlightTimedOutError),
    ("55P03", flight.FlightTimedOutError),
    ("53", flight.FlightUnavailableError),
    ("57P", flight.FlightUnavailableError),
    ("08", flight.FlightUnavailableError),
    ("25P", flight.FlightUnavailableError),
    ("40", flight.FlightUnavailableError),
)
"""First matching prefix wins."""


def hide_tracebacks() -> None:
    """Keep Python tracebacks out of replies.

    pyarrow appends ``traceback.format_exception`` of anything that is not a FlightError to the text a client
    reads: file names and source lines, to unauthenticated callers too.  This is the one switch that format has;
    the log passes its own limit and still shows everything.
    """
    sys.tracebacklimit = 0


def to_flight(failure: BaseException) -> Any:
    """Return the error to raise to the client for any failure."""
    if isinstance(failure, PostgresError):
        for prefix, make in BY_SQLSTATE:
            if failure.sqlstate.startswith(prefix):
                return make(shorten(str(failure)))
        return flight.FlightServerError(shorten(str(failure)))
    for kind, make in BY_CLASS:
        if isinstance(failure, kind):
            return make(shorten(str(failure)))
    reference = secrets.token_hex(4)
    log.error("internal error", reference=reference, exc_info=failure)
    return flight.FlightInternalError(f"internal error; the server's log has it under reference {reference}")


def shorten(text: str) -> str:
    """Cut a text to what fits into gRPC's trailers."""
    clean = text.replace("\0", "")
    if len(clean) <= MAX_TEXT:
        return clean
    return clean[: MAX_TEXT - KEPT_TAIL - 3] + " … " + clean[-KEPT_TAIL:]


def typed(method: Callable[P, R]) -> Callable[P, R]:
    """Let only Flight errors out of an RPC."""

    @wraps(method)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            result = method(*args, **kwargs)
        except Exception as failure:  # noqa: BLE001 (the border: everything is translated, nothing swallowed)
            raise _counted(method.__name__, to_flight(failure)) from None
        if method.__name__ not in GO_ON:
            metrics.count_call(method.__name__)
        return result

    return guarded


def typed_batches(batches: Iterator[Any]) -> Iterator[Any]:
    """Let only Flight errors out of a stream."""
    try:
        yield from batches
    except Exception as failure:  # noqa: BLE001 (as above)
        raise _counted(STREAMING, to_flight(failure)) from None
    metrics.count_call(STREAMING)


def _counted(method: str, failure: Any) -> Any:
    metrics.count_call(method, type(failure).__name__)
    return failure
