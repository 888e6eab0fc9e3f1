"""What can be wrong with a Flight SQL request, before anybody asks a database.

pyarrow answers a ValueError with INVALID_ARGUMENT and a NotImplementedError with UNIMPLEMENTED: the codes that
clients expect, where a server does not translate the errors itself.
"""

from __future__ import annotations


class FlightSqlError(Exception):
    """Base of this package's errors."""


class MalformedError(FlightSqlError, ValueError):
    """The bytes are no message of the protocol, or a message that makes no sense."""


class UnsupportedError(FlightSqlError, NotImplementedError):
    """The server does not do this."""


class ClientGoneError(FlightSqlError, ConnectionError):
    """The client went away before it could be told the outcome."""
