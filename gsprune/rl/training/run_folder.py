"""The folder of a run. Only one process at a time may write it.

::

    config.json      the algorithm and its options
    metrics.jsonl    one line per iteration
    tensorboard/     the same metrics for TensorBoard
    checkpoints/     the last two, see checkpoints.py
    summary.md, summary.json, curves.png     written at the end
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from gsprune.files import lock_file, write_atomically

__all__ = ["RunFolder", "holds_run", "is_finished", "read_config"]

_DEPTHS = ("*", "*/*", "*/*/*")  # places of run folders in a sweep's folder or a folder of runs


class RunFolder:
    """A run's folder. This process holds its lock until `close` or until the process ends."""

    def __init__(self, path: Path, lock: IO[str] | None, found: frozenset[Path] | None = None) -> None:
        """Use `create`, `open` or `without_lock` instead."""
        self.path = path
        self._lock = lock
        self._found = found  # entries before `create`; None if this process did not create the run

    @classmethod
    def create(cls, path: Path, algorithm: str, config: Mapping[str, Any]) -> RunFolder:
        """Create the folder of a new run; `config` has the options as JSON values.

        Raises:
            ValueError: the folder contains a run or other runs already, is in use, or cannot be written.
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
    def without_lock(cls, path: Path) -> RunFolder:
        """The folder without its lock, for reading, or while another process of the same training has the lock."""
        return cls(path, None)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open and lock the folder of a run to resume it.

        Raises:
            ValueError: there is no run, or another process has the lock.
        """
        read_config(path)
        try:
            return cls(path, _locked(path))
        except OSError as error:
            raise ValueError(f"the run folder {str(path)!r} cannot be written: {error.strerror}") from error

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    def undo_create(self) -> None:
        """Delete what this process added to the folder since `create`, unless the run has a checkpoint."""
        if self._found is None or any(self.checkpoints.glob("step-*")):
            return
        for entry in {self.path, *self.path.iterdir()} - self._found:
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.close()


def holds_run(path: Path) -> bool:
    """True if the folder has the ``config.json`` of a run. Other programs have files of that name, too."""
    try:
        config = json.loads((path / "config.json").read_text())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "algorithm" in config


def is_finished(path: Path) -> bool:
    """True if the training of a run has ended and its summary is written."""
    return (path / "summary.json").is_file()


def read_config(path: Path) -> dict[str, Any]:
    """The contents of a run's ``config.json``.

    Raises:
        ValueError: the folder has no such file.
    """
    file = path / "config.json"
    if not file.is_file():
        raise ValueError(f"{str(path)!r} is not a run folder: it has no config.json")
    config: dict[str, Any] = json.loads(file.read_text())
    return config


def _locked(path: Path) -> IO[str]:
    """Lock a run folder; return the open lock file. The system releases the lock when the process ends."""
    return lock_file(
        path / ".lock",
        lambda owner: f"the run in {str(path)!r} is in use by process {owner}; wait for it, or stop it first",
    )
