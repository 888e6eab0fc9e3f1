"""One state of the interpreter for each call: without this, every step of a call makes and drops its own.

Calls run on gRPC's threads, which Python knows only while they are inside it.  A call enters a dozen times, for
its middleware, its method and each batch, and each time the interpreter maps and unmaps a stack; one more entry,
kept from a call's first step to its last, makes them share one.
"""

from __future__ import annotations

import ctypes
import threading

_ensure = ctypes.pythonapi.PyGILState_Ensure
_ensure.restype = ctypes.c_int
_release = ctypes.pythonapi.PyGILState_Release
_release.argtypes = (ctypes.c_int,)
_release.restype = None


class ThreadState:
    """Keeps the calling thread's state of the interpreter until it is released, by the same thread."""

    __slots__ = ("_state", "_thread")

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._state = _ensure()

    def release(self) -> None:
        """Let the state go with the thread's next exit from Python; for another thread this does nothing."""
        if self._thread == threading.get_ident():
            self._thread = 0
            _release(self._state)
