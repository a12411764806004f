"""The folder of a run: what lies in it, and that one process at a time writes there.

::

    config.json      the options, and which algorithm they are of
    metrics.jsonl    one line per iteration
    tensorboard/     the same for TensorBoard
    checkpoints/     the last two, see checkpointing.py
    summary.md, summary.json, curves.png     written at the end
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from gsprune.files import lock_file, write_atomically

__all__ = ["RunFolder", "holds_run", "read_config"]

_DEPTHS = ("*", "*/*", "*/*/*")  # at which a sweep's folder or a folder of runs has them


class RunFolder:
    """A run's folder, locked for this process until `close` or its end, however it ends."""

    def __init__(self, path: Path, lock: IO[str] | None, found: frozenset[Path] | None = None) -> None:
        """Use `create`, `open` or `guest`."""
        self.path = path
        self._lock = lock
        self._found = found  # what lay there before `create`; None if this process did not create the run

    @classmethod
    def create(cls, path: Path, algorithm: str, config: Mapping[str, Any]) -> RunFolder:
        """Make the folder of a new run.

        Args:
            path: the folder; its parents are made as needed.
            algorithm: "ppo" or "dqn".
            config: the options as JSON values.

        Raises:
            ValueError: the folder holds a run or other runs already, is in use, or cannot be written.
        """
        others = sorted(file.parent for depth in _DEPTHS for file in path.glob(f"{depth}/config.json"))
        others = [folder for folder in others if holds_run(folder)]
        if others:
            raise ValueError(
                f"--run-dir must be a folder for one run, but {str(path)!r} holds other runs, such as"
                f" {str(others[0])!r}; choose a folder of its own, such as --run-dir {path / 'new'}"
            )
        try:
            found = frozenset([path, *path.iterdir()]) if path.is_dir() else frozenset()
            path.mkdir(parents=True, exist_ok=True)
            lock = _locked(path)
        except OSError as error:
            raise ValueError(
                f"the run folder {str(path)!r} cannot be written ({error.strerror}); choose another with --run-dir"
            ) from error
        if (path / "config.json").exists():
            lock.close()
            raise ValueError(
                f"{str(path)!r} holds a run already; resume it with --resume {path}, or choose another --run-dir"
            )
        text = json.dumps({"algorithm": algorithm, **config}, indent=2)
        write_atomically(path / "config.json", text.encode())
        return cls(path, lock, found)

    @classmethod
    def guest(cls, path: Path) -> RunFolder:
        """The folder that another process of the same training has opened, for reading checkpoints."""
        return cls(path, None)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open and lock the folder of a run to resume it.

        Raises:
            ValueError: there is no run, or another process is in it.
        """
        read_config(path)
        try:
            return cls(path, _locked(path))
        except OSError as error:
            raise ValueError(f"the run folder {str(path)!r} cannot be written: {error.strerror}") from error

    @property
    def is_finished(self) -> bool:
        """True if the training has come to its end and its summary is written."""
        return (self.path / "summary.json").is_file()

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints lie."""
        return self.path / "checkpoints"

    def withdraw(self) -> None:
        """Take `create` back, where a run could not begin: its folder is free for the next, and its disk space, too."""
        if self._found is None:
            return
        for entry in {self.path, *self.path.iterdir()} - self._found:
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)

    def close(self) -> None:
        """Let other processes in."""
        if self._lock is not None:
            self._lock.close()


def holds_run(path: Path) -> bool:
    """True if the folder has the ``config.json`` of a run; other programs have files of that name, too."""
    try:
        config = json.loads((path / "config.json").read_text())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "algorithm" in config


def read_config(path: Path) -> dict[str, Any]:
    """The contents of a run's ``config.json``.

    Raises:
        ValueError: there is none.
    """
    file = path / "config.json"
    if not file.is_file():
        raise ValueError(f"{str(path)!r} is not a run folder: it has no config.json")
    config: dict[str, Any] = json.loads(file.read_text())
    return config


def _locked(path: Path) -> IO[str]:
    """The open lock file of a run folder; the system unlocks it when the process ends."""
    return lock_file(
        path / ".lock",
        lambda owner: f"the run in {str(path)!r} is in use by process {owner}; wait for it, or stop it first",
    )
