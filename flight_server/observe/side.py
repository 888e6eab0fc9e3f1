"""The side port: ``/metrics``, ``/healthz`` (the process answers) and ``/readyz`` (it can serve)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

REQUEST_TIMEOUT_S = 5.0
"""A connection that sends nothing is closed after so long."""
TEXT = "text/plain; charset=utf-8"


class SidePort:
    """Answers probes and Prometheus in threads of its own, from construction until `close`.

    Parameters
    ----------
    host : str
    port : int
        0 for any free one.
    registry : CollectorRegistry
    problem : callable
        Returns why the server cannot serve, None if it can.

    Raises
    ------
    OSError
        The address cannot be listened on.
    """

    def __init__(
        self, host: str, port: int, registry: CollectorRegistry, problem: Callable[[], str | None]
    ) -> None:
        class Handler(_Handler):
            answers = {  # noqa: RUF012 (a class of this port alone)
                "/metrics": lambda: (HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(registry)),
                "/healthz": lambda: (HTTPStatus.OK, TEXT, b"ok\n"),
                "/readyz": lambda: _readiness(problem()),
            }

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="side-port", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


Answer = tuple[HTTPStatus, str, bytes]


def _readiness(problem: str | None) -> Answer:
    if problem is None:
        return HTTPStatus.OK, TEXT, b"ready\n"
    return HTTPStatus.SERVICE_UNAVAILABLE, TEXT, f"{problem}\n".encode()


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_TIMEOUT_S
    answers: dict[str, Callable[[], Answer]]

    def do_GET(self) -> None:
        """Answer a known path."""
        make = self.answers.get(self.path.partition("?")[0])
        status, kind, body = make() if make else (HTTPStatus.NOT_FOUND, TEXT, b"not found\n")
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        """Tell nobody what runs here."""
        return "pgflight"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the signature is http.server's)
        """Log nothing: probes come every few seconds."""
