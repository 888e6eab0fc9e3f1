"""Every error pgflight raises, in one tree.

::

    PgflightError
    ├── ConfigError            the server's own settings do not make sense
    ├── RequestError           what the client asked for cannot be understood, or is refused by name
    │   ├── TicketError        a ticket that is forged, expired, foreign or out of date
    │   │   └── SnapshotEndedError   the snapshot it reads is gone: plan the read again
    │   └── UnsupportedError   a call this server does not serve at all
    ├── UnauthenticatedError   no or wrong credentials
    ├── ForbiddenError         the right credentials of somebody who is not let in
    ├── DecodeError            PostgreSQL's bytes break the wire format
    │   └── ValueRangeError    a sound value that the Arrow type cannot hold
    ├── PostgresError          PostgreSQL said no: carries SQLSTATE
    ├── ConnectionLostError    PostgreSQL cannot be reached, or went away in the middle
    │   └── OutcomeUnknownError   in the middle of making a change last: nobody knows whether it did
    ├── OverloadedError        a limit is reached; try again later
    ├── DeadlineError          the time the client gave is over
    └── CancelledError         the client went away or cancelled

After any of them the stream has ended: its connection is either rolled back and back in the pool, or closed.
This module imports nothing.
"""

from __future__ import annotations


class PgflightError(Exception):
    """Base of all errors that are meant to be read by people."""


class ConfigError(PgflightError):
    """The server's settings do not make sense; it does not start."""


class RequestError(PgflightError):
    """The request cannot be understood, or asks for what this server does not do."""


class TicketError(RequestError):
    """The ticket is forged, expired, another's, or describes a schema that is no longer true."""


class SnapshotEndedError(TicketError):
    """The snapshot that the ticket reads has ended; the same ticket will never be good again."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(
            "the snapshot of this ticket has ended: plan the read again" + (f" ({reason})" if reason else "")
        )


class UnsupportedError(RequestError):
    """The call is part of Flight, but not of this server."""


class UnauthenticatedError(PgflightError):
    """The call carries no credentials, or wrong ones."""


class ForbiddenError(PgflightError):
    """Somebody known, who is not let in."""


class DecodeError(PgflightError):
    """PostgreSQL's bytes break the wire format.

    Parameters
    ----------
    message : str
        What is wrong.
    row : int or None
        Row of the result, counted from 0.
    column : str or None
        Name of the column.
    offset : int or None
        Byte offset of the field in the reply.
    """

    def __init__(
        self, message: str, *, row: int | None = None, column: str | None = None, offset: int | None = None
    ) -> None:
        place = ", ".join(
            text
            for text, known in (
                (f"row {row}", row is not None),
                (f"column {column!r}", column is not None),
                (f"byte {offset}", offset is not None),
            )
            if known
        )
        super().__init__(f"{message} ({place})" if place else message)
        self.row = row
        self.column = column
        self.offset = offset


class ValueRangeError(DecodeError):
    """A value that PostgreSQL can hold and the Arrow type cannot: never changed, always refused."""


class PostgresError(PgflightError):
    """PostgreSQL refused or failed.

    Parameters
    ----------
    message : str
        The primary message, with detail, hint and position where PostgreSQL gave them.
    sqlstate : str
        The five-character SQLSTATE, or ``"XX000"`` where none came.
    """

    def __init__(self, message: str, sqlstate: str = "XX000") -> None:
        super().__init__(f"{message} [SQLSTATE {sqlstate}]")
        self.sqlstate = sqlstate


class ConnectionLostError(PgflightError):
    """PostgreSQL cannot be reached, or closed the connection in the middle of something."""


class OutcomeUnknownError(ConnectionLostError):
    """The connection was lost before PostgreSQL answered: whether the change was made is not known."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the connection was lost before {what} was answered: whether it took effect is unknown")


class OverloadedError(PgflightError):
    """A configured limit is reached; the same request may succeed later."""


class DeadlineError(PgflightError):
    """The time allowed for the request is over."""


class CancelledError(PgflightError):
    """The client cancelled or went away."""
