"""Runs a program that Linux kills when its parent process ends.

A sweep that is killed by ``kill -9`` cannot stop its trials. So it starts each trial through this script. The script
asks the system for a SIGKILL at the parent's death and then replaces itself by the program. It is started by its path,
because as a module it would import the whole package first.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

__all__ = ["tie_to_parent"]

_PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>
_CANNOT_START = 127


def tie_to_parent(command: Sequence[str]) -> list[str]:
    """The command line that runs `command` until this process ends; on systems other than Linux, `command` itself.

    Args:
        command: program and arguments. Start it from the main thread: Linux sends the signal when the starting thread
            ends.
    """
    if not sys.platform.startswith("linux"):
        return list(command)
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def _main(parent: int, command: Sequence[str]) -> None:
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended before prctl was called
        sys.exit(_CANNOT_START)
    try:
        os.execvp(command[0], list(command))
    except OSError as error:
        sys.stderr.write(f"cannot start {command[0]}: {error.strerror}\n")
        sys.exit(_CANNOT_START)


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2:])
