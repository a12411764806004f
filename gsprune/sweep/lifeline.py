"""Runs a program that ends when the process that started it does, however that one ends.

A sweep that is killed by ``kill -9`` cannot stop its trials itself. So each is started through this file, which asks
the system to kill it as soon as its parent is gone, and then becomes the program. It is run as a script, by its path:
as a module it would import the whole package first.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

__all__ = ["tied"]

_PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>
_CANNOT_START = 127


def tied(command: Sequence[str]) -> list[str]:
    """The command line under which `command` ends with this process (on Linux; elsewhere it is `command` alone).

    Args:
        command: program and arguments. It must be started from a thread that lives as long as it shall: to the system,
            the parent is the thread.
    """
    if not sys.platform.startswith("linux"):
        return list(command)
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def _main(parent: int, command: Sequence[str]) -> None:
    """Become `command`; it is killed when the process `parent` ends."""
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the system was asked
        sys.exit(_CANNOT_START)
    try:
        os.execvp(command[0], list(command))
    except OSError as error:
        sys.stderr.write(f"cannot start {command[0]}: {error.strerror}\n")
        sys.exit(_CANNOT_START)


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2:])
