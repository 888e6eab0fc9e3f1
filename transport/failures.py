"""psycopg's exceptions -> ours, at one border."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import psycopg_pool
from psycopg import pq
from psycopg.pq import abc

from kernels.errors import ConnectionLostError, OverloadedError, PostgresError
from transport import messages

LOST_CLASSES = ("08", "57P01", "57P02", "57P03")


@contextmanager
def translated() -> Iterator[None]:
    """Raise our error for psycopg's, most specific first; the cause is kept for the log."""
    try:
        yield
    except psycopg_pool.TooManyRequests as failure:
        raise OverloadedError("too many requests wait for a PostgreSQL connection") from failure
    except psycopg_pool.PoolTimeout as failure:
        # The pool's own slots saw to it that a connection may be opened: it could not be.
        raise ConnectionLostError("PostgreSQL could not be connected to in time") from failure
    except psycopg_pool.PoolClosed as failure:
        raise ConnectionLostError("the server is shutting down") from failure
    except psycopg.Error as failure:
        raise from_psycopg(failure) from failure


def from_psycopg(failure: psycopg.Error) -> PostgresError | ConnectionLostError:
    """Translate one exception."""
    text = " ".join((failure.diag.message_primary or str(failure) or type(failure).__name__).split())
    if failure.sqlstate is None:
        return ConnectionLostError(f"PostgreSQL cannot be reached: {text}")
    return lost_or_refused(PostgresError(text, failure.sqlstate))


def lost_or_refused(error: PostgresError) -> PostgresError | ConnectionLostError:
    """Tell an error after which the connection is gone from one after which it is not."""
    if error.sqlstate.startswith(LOST_CLASSES):
        return ConnectionLostError(f"PostgreSQL closed the connection: {error}")
    return error


def require_ok(result: abc.PGresult) -> abc.PGresult:
    """Return the result of a libpq call, or raise the error it carries."""
    if result.status == pq.ExecStatus.COMMAND_OK:
        return result
    parts = {
        "M": pq.DiagnosticField.MESSAGE_PRIMARY,
        "D": pq.DiagnosticField.MESSAGE_DETAIL,
        "H": pq.DiagnosticField.MESSAGE_HINT,
        "P": pq.DiagnosticField.STATEMENT_POSITION,
        "C": pq.DiagnosticField.SQLSTATE,
    }
    known = {key: result.error_field(field) for key, field in parts.items()}
    if known["C"] is None:
        raise ConnectionLostError(f"PostgreSQL closed the connection: {result.get_error_message()}")
    raise lost_or_refused(
        messages.error({key: value.decode("utf-8", "replace") for key, value in known.items() if value})
    )
