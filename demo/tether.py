"""Run a command that dies with the process that started it, as another user where asked.

A small program of its own, started with ``python -I -S``, rather than a ``preexec_fn``: code that runs
between fork and exec in a process with threads (gRPC, Arrow) may deadlock, and Python 3.12 warns about it.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1


def tethered(
    command: Sequence[str | Path], *, death_signal: signal.Signals, owner: tuple[int, int] | None = None
) -> list[str]:
    """Wrap ``command`` so that the kernel signals it when its parent dies, even by ``kill -9``.

    The tie is to the parent *thread* (Linux, ``prctl(2)``): start children from a thread that lives as long
    as they should. Outside Linux the command simply runs. The wrapper's process ID becomes the command's own.

    Parameters
    ----------
    command
        Program, by absolute path, and its arguments.
    death_signal
        What the command receives when the parent dies.
    owner
        User and group ID to run as; None keeps the caller's.
    """
    uid, gid = owner if owner else (-1, -1)
    prefix = [sys.executable, "-I", "-S", __file__, os.getpid(), int(death_signal), uid, gid]
    return [*map(str, prefix), *map(str, command)]


def main(arguments: Sequence[str]) -> None:
    """Become the command: drop privileges, tie the knot, exec."""
    parent, death_signal, uid, gid = map(int, arguments[:4])
    command = list(arguments[4:])
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":  # after setuid, which clears the parent-death signal
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit("the parent process died while the command was starting")
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # the interpreter ignores it, and exec would pass that on
    os.execv(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
