"""Where a trial's process runs: on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from gsprune.sweep.lifeline import tied

__all__ = ["End", "Launcher", "LocalLauncher", "Task", "start_process"]


class End(NamedTuple):
    """How a trial's process has ended.

    Attributes:
        code: its exit code; negative for a signal.
        lost: whether it did not end by itself, but with the machine or the worker that it ran on.
    """

    code: int
    lost: bool = False


class Task(Protocol):
    """A trial's process."""

    def poll(self) -> End | None:
        """How it has ended; None while it runs."""

    def interrupt(self) -> None:
        """Ask it to stop; it writes its checkpoint."""

    def kill(self) -> None:
        """End it at once, and what it has started."""

    def wait(self) -> None:
        """Return when it has ended after `kill`."""


class Launcher(Protocol):
    """Starts trials."""

    def room(self, running: int) -> int:
        """How many trials may be started now, with so many running."""

    def start(self, command: Sequence[str], log: Path) -> Task:
        """Start a program.

        Args:
            command: program and arguments.
            log: the file to which its output is appended.
        """


class LocalLauncher:
    """Processes of this machine, a fixed number at a time.

    Args:
        workers: how many.
        variables: set in their environment.

    Raises:
        ValueError: `workers` below 1.
    """

    def __init__(self, workers: int, variables: Mapping[str, str]) -> None:
        if workers < 1:
            raise ValueError(f"`workers` must be at least 1, got {workers}")
        self._workers = workers
        self._variables = variables

    def room(self, running: int) -> int:
        """See `Launcher.room`."""
        return self._workers - running

    def start(self, command: Sequence[str], log: Path) -> Task:
        """See `Launcher.start`."""
        return _LocalTask(start_process(command, log, self._variables))


def start_process(command: Sequence[str], log: Path, variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a program that leads a session of its own and ends, at the latest, with this process.

    Args:
        command: program and arguments.
        log: the file to which its output is appended; its folder is made as needed.
        variables: set in its environment.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            tied(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **variables},
            start_new_session=True,
        )


class _LocalTask:
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
