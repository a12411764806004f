"""Launchers start the processes of trials. `LocalLauncher` starts them on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from gsprune.checks import check_whole
from gsprune.sweep.lifeline import tie_to_parent

__all__ = ["End", "Launcher", "LocalLauncher", "TrialProcess", "start_process"]


class End(NamedTuple):
    """The end of a trial's process.

    Attributes:
        code: exit code; negative for a signal.
        lost: True if the process was lost with its machine or Ray worker.
    """

    code: int
    lost: bool = False


class TrialProcess(Protocol):
    """The process of a trial."""

    def poll(self) -> End | None:
        """The end of the process; None while it runs."""

    def interrupt(self) -> None:
        """Send SIGINT: the trainer writes a checkpoint and stops."""

    def kill(self) -> None:
        """Kill the process and its children."""

    def wait(self) -> None:
        """Block until the process has ended after `kill`."""


class Launcher(Protocol):
    """Starts the processes of trials."""

    def room(self, running: int) -> int:
        """The number of trials that can start now, if `running` trials run already."""

    def start(self, command: Sequence[str], log: Path) -> TrialProcess:
        """Start a program, whose output is appended to `log`."""


class LocalLauncher:
    """Runs up to `workers` processes at a time on this machine.

    Args:
        workers: the maximum number of processes, >= 1.
        variables: environment variables of every process.

    Raises:
        ValueError: `workers` is below 1.
    """

    def __init__(self, workers: int, variables: Mapping[str, str]) -> None:
        self._workers = check_whole("workers", workers, at_least=1)
        self._variables = variables

    def room(self, running: int) -> int:
        """See `Launcher.room`."""
        return self._workers - running

    def start(self, command: Sequence[str], log: Path) -> TrialProcess:
        """See `Launcher.start`."""
        return _LocalProcess(start_process(command, log, self._variables))


def start_process(command: Sequence[str], log: Path, variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a program in its own session. On Linux it is killed when this process ends.

    Its output is appended to `log`, whose folder is created if missing. It has this process's environment variables
    and `variables`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            tie_to_parent(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **variables},
            start_new_session=True,
        )


class _LocalProcess:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def poll(self) -> End | None:
        code = self._process.poll()
        return None if code is None else End(code)

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def wait(self) -> None:
        self._process.wait()
