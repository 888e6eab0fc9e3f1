"""One state of the interpreter for each call, let go of once, and by the thread that it belongs to."""

from __future__ import annotations

import ctypes
import threading

import pytest

from flight_server import thread_state
from flight_server.thread_state import ThreadState


@pytest.fixture
def released(monkeypatch) -> list[int]:
    """What is released, still for real."""
    seen: list[int] = []
    release = thread_state._release

    def counting(state: int) -> None:
        seen.append(state)
        release(state)

    monkeypatch.setattr(thread_state, "_release", counting)
    return seen


def test_it_is_released_once(released) -> None:
    state = ThreadState()
    state.release()
    state.release()
    assert len(released) == 1


def test_another_thread_leaves_it_alone(released) -> None:
    state = ThreadState()
    other = threading.Thread(target=state.release)
    other.start()
    other.join()
    assert released == []
    state.release()
    assert len(released) == 1


def test_a_thread_of_somebody_else_leaves_python_for_good(released) -> None:
    """One that Python has not made, as gRPC's are: its state ends with the last release, not before."""
    libc, handle = ctypes.CDLL(None), ctypes.c_ulong()
    found: list[int] = []

    @ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
    def enter(_argument: int | None) -> None:
        state = ThreadState()
        found.append(threading.get_ident())
        state.release()

    assert libc.pthread_create(ctypes.byref(handle), None, enter, None) == 0
    assert libc.pthread_join(handle, None) == 0
    assert len(found) == len(released) == 1
    assert found[0] not in (thread.ident for thread in threading.enumerate())
