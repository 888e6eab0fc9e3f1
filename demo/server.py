"""The pgflight server as a child process: started, awaited, and stopped for certain."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from demo.tether import tethered

ROOT = Path(__file__).resolve().parent.parent

START_DEADLINE_S = 120.0  # the very first start compiles the kernels
STOP_S = 15.0
POLL_S = 0.02
LOG_TAIL_LINES = 5

ANSI = re.compile(r"\x1b\[[0-9;]*m")
LISTENING = re.compile(r"\blistening\b")
URI = re.compile(r"""\buri["']?\s*[:=]\s*["']?([a-z+]+://[^\s"',}]+)""")


class ServerError(RuntimeError):
    """The server did not start, or ended by itself; the message has the end of its log."""


class ServerProcess:
    """A running ``flight_server serve``; stopped with the ``with`` block, and when our thread dies.

    Attributes
    ----------
    uri
        Where it listens, the port resolved.
    pid
        Its process ID.
    log
        The file of its log.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path, uri: str) -> None:
        self.uri = uri
        self.pid = process.pid
        self._process = process
        self.log = log

    @classmethod
    def start(
        cls,
        dsn: str,
        *,
        log: Path,
        listen: str = "grpc://127.0.0.1:0",
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Self:
        """Start the server and wait until it listens.

        Parameters
        ----------
        dsn
            PostgreSQL to read from.
        log
            File for its log; overwritten.
        listen
            Address to listen on; port 0 lets the system choose.
        options
            Further command-line options of ``serve``.
        environment
            Variables on top of ours: the place for ``PGPASSWORD``, which a command line would show.

        Raises
        ------
        ServerError
            It ended, or did not listen within two minutes.
        """
        command = [sys.executable, "-m", "flight_server", "serve", "--dsn", dsn, "--listen", listen, *options]
        with log.open("wb") as sink:
            process = subprocess.Popen(
                tethered(command, death_signal=signal.SIGTERM),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,  # the terminal's Ctrl-C is for us: we stop it in order
            )
        try:
            return cls(process, log, _await_uri(process, log))
        except BaseException:
            _stop(process)
            raise

    def wait(self) -> None:
        """Block until the server ends by itself, which is an error."""
        status = self._process.wait()
        msg = f"the server ended with status {status}: {_tail(self.log)}"
        raise ServerError(msg)

    def stop(self) -> None:
        """Stop it: in order within a bound, then by force. Idempotent."""
        _stop(self._process)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _await_uri(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline:
        ended = process.poll() is not None  # asked before reading, so that its last words are not missed
        for line in ANSI.sub("", log.read_text(errors="replace")).splitlines():
            if LISTENING.search(line) and (uri := URI.search(line)):
                return uri.group(1)
        if ended:
            msg = f"the server ended with status {process.returncode} before it listened: {_tail(log)}"
            raise ServerError(msg)
        time.sleep(POLL_S)
    msg = f"the server did not listen within {START_DEADLINE_S:.0f} s: {_tail(log)}"
    raise ServerError(msg)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " | ".join(lines[-LOG_TAIL_LINES:]) or "(empty log)"
