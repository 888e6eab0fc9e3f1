"""Ctrl-C and SIGTERM while gRPC waits: its calls run in a thread, the main thread stays responsive."""

import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from types import FrameType
from typing import TypeVar

_GRACE_S = 2.0
_POLL_S = 0.5

Result = TypeVar("Result")


def interruptible(work: Callable[[], Result], cancel: Callable[[], None] | None = None) -> Result:
    """Run `work` in a thread and return its result; to be called from the main thread.

    After Ctrl-C, or SIGTERM under :func:`exit_on_sigterm`, `cancel` is called and `work` has 2 s to end
    before the interrupt goes on. Work that does not end, or that nothing can cancel, ends with the process.
    """
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - handed over to the main thread, which raises it
            future.set_exception(error)

    threading.Thread(target=run, name="pgflight", daemon=True).start()
    try:
        while not future.done():
            wait([future], timeout=_POLL_S)  # Windows does not interrupt a wait without end
    except (KeyboardInterrupt, SystemExit):
        if cancel is not None:
            cancel()
            wait([future], timeout=_GRACE_S)
        raise
    return future.result()


def exit_on_sigterm() -> None:
    """Have SIGTERM raise ``SystemExit`` in the main thread, so that temporary files are removed."""
    signal.signal(signal.SIGTERM, _exit)


def _exit(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
