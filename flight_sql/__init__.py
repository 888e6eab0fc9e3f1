"""Flight SQL for servers written in Python: messages, dispatch and result schemas, whatever the database."""

from flight_sql.envelope import is_packed, pack
from flight_sql.errors import ClientGoneError, FlightSqlError, MalformedError, UnsupportedError
from flight_sql.router import Router
from flight_sql.service import FlightSqlService, Stream

__all__ = [
    "ClientGoneError",
    "FlightSqlError",
    "FlightSqlService",
    "MalformedError",
    "Router",
    "Stream",
    "UnsupportedError",
    "is_packed",
    "pack",
]
