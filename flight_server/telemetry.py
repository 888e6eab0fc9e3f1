"""Logging: one line per call, on stderr; JSON unless somebody watches a terminal."""

from __future__ import annotations

import hashlib
import logging
import sys
import traceback
from typing import Any, Literal

import structlog
from structlog.typing import EventDict, WrappedLogger

TRACEBACK_FRAMES = 50


def configure_logging(form: Literal["auto", "console", "json"] = "auto", level: str = "info") -> None:
    """Set structlog up for the whole process."""
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    renderer: Any = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _format_exception,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_ToStructlog()], level=logging.WARNING, force=True)
    # The pool warns of each connection that comes back closed; that is how abandoned streams end here.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)


class _ToStructlog(logging.Handler):
    """Sends what libraries log through the standard library to the same place, in the same form."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record."""
        structlog.get_logger(record.name).log(record.levelno, record.getMessage())


def query_digest(sql: str) -> str:
    """Return a short digest of a statement: lines of the log can be compared without showing its text."""
    return hashlib.sha256(sql.encode()).hexdigest()[:12]


def _format_exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Write tracebacks with a limit of our own: the interpreter's is zero, for the replies (see status.py)."""
    failure = event.pop("exc_info", None)
    if isinstance(failure, BaseException):
        event["exception"] = "".join(traceback.format_exception(failure, limit=TRACEBACK_FRAMES))
    return event
