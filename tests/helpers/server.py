"""A pgflight server in a process of its own, as users run it."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Self

import psutil

START_DEADLINE_S = 120.0
STOP_DEADLINE_S = 30.0


class ServerProcess:
    """``python -m flight_server serve`` on a free port, with its log.

    Parameters
    ----------
    dsn : str
    *flags : str
        More command-line flags.
    environment : dict, optional
        Added to the process's environment.
    module : str
        What is run.
    program : Path, optional
        An installed command to run instead of a module.
    """

    def __init__(
        self,
        dsn: str,
        *flags: str,
        environment: dict[str, str] | None = None,
        module: str = "flight_server",
        program: Path | None = None,
    ) -> None:
        listen = () if "--listen" in flags else ("--listen", "grpc://127.0.0.1:0")
        start = [str(program)] if program else [sys.executable, "-m", module]
        command = [*start, "serve", "--dsn", dsn, "--log-format", "json"]
        self._process = subprocess.Popen(
            [*command, *listen, *flags],
            stderr=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
            text=True,
        )
        self.log: list[dict[str, Any]] = []
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._follow, daemon=True).start()
        self.uri = self.wait_for("listening", START_DEADLINE_S)["uri"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process ID."""
        return self._process.pid

    @property
    def process(self) -> psutil.Process:
        """For RSS, threads and file descriptors."""
        return psutil.Process(self._process.pid)

    @property
    def returncode(self) -> int | None:
        """Exit status, None while running."""
        return self._process.poll()

    def wait_for(self, event: str, deadline_s: float = 10.0, **fields: object) -> dict[str, Any]:
        """Return the next log line of an event, with the given fields."""
        while True:
            try:
                line = self._lines.get(timeout=deadline_s)
            except queue.Empty:
                raise AssertionError(f"no log line {event!r}; so far: {self.log[-20:]}") from None
            if line is None:
                raise AssertionError(f"the server ended with {self._process.wait()}; log: {self.log[-20:]}")
            if line.get("event") == event and fields.items() <= line.items():
                return line

    def forget(self) -> None:
        """Drop the log lines so far: `wait_for` then sees later ones only."""
        while not self._lines.empty():
            self._lines.get()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def wait(self, deadline_s: float = STOP_DEADLINE_S) -> int:
        """Wait for the end; return the exit status."""
        return self._process.wait(deadline_s)

    def stop(self) -> None:
        """End the process if it runs, and close its pipe."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                raise

    def _follow(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            for text in stream:
                try:
                    line = json.loads(text)
                except json.JSONDecodeError:
                    line = {"event": "text", "text": text.rstrip()}
                self.log.append(line)
                self._lines.put(line)
        self._lines.put(None)
