"""The folder of a sweep: which trials it has, which are done, and that one sweep at a time works in it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsprune.files import lock_file, write_atomically
from gsprune.sweep.plan import Trial
from gsprune.sweep.runner import Job, Status

__all__ = ["Progress", "SweepFolder", "read_progress", "train_command"]

_MANIFEST = "sweep.json"
_LOCK = ".sweep.lock"
_ROW_BYTES = 65_536  # far more than the longest row of metrics


class SweepFolder:
    """A sweep's folder, locked for this process until `close` or its end, however it ends.

    ``sweep.json`` lists the trials with their options, so that a sweep that goes on is known to be the same; further
    trials may be added to it.
    """

    def __init__(self, path: Path) -> None:
        """Make the folder as needed, and lock it.

        Raises:
            ValueError: another sweep works in it, or it cannot be written.
        """
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = lock_file(
                path / _LOCK,
                lambda owner: f"another sweep (process {owner}) works in {str(path)!r}; wait, or stop it first",
            )
        except OSError as error:
            raise ValueError(
                f"the sweep's folder {str(path)!r} cannot be written ({error.strerror}); choose another --out"
            ) from error

    def close(self) -> None:
        """Let other sweeps in."""
        self._lock.close()

    def jobs(self, trials: Sequence[Trial], dry_run: bool = False) -> list[Job]:
        """A job per trial: finished ones are skipped, interrupted ones resumed; ``sweep.json`` is brought up to date.

        Args:
            trials: of this sweep, with folders inside `path`.
            dry_run: change nothing on disk.

        Raises:
            ValueError: a trial was begun with other options, or ``sweep.json`` is damaged; nothing is changed.
        """
        known = self._known()
        for trial in trials:
            before = known.get(self._key(trial))
            now = _entry(trial)
            begun = before is not None and (trial.folder / "config.json").is_file()
            if begun and before != now:
                raise ValueError(
                    f"{trial.name} was begun with {_words(before)}, and is now asked for with {_words(now)}; choose "
                    f"another --out, another method name, or delete {trial.folder}"
                )
        entries = known | {self._key(trial): _entry(trial) for trial in trials}
        document = {"trials": [{"folder": folder, **entry} for folder, entry in entries.items()]}
        if not dry_run:
            write_atomically(self.path / _MANIFEST, json.dumps(document, indent=1).encode())
        return [_job(trial) for trial in trials]

    def _known(self) -> dict[str, dict[str, Any]]:
        file = self.path / _MANIFEST
        if not file.is_file():
            return {}
        try:
            trials = json.loads(file.read_text())["trials"]
            return {trial.pop("folder"): trial for trial in trials}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{str(file)!r} is damaged ({error}); delete it to have it made anew") from error

    def _key(self, trial: Trial) -> str:
        return trial.folder.relative_to(self.path).as_posix()


def train_command(job: Job, threads: int | None) -> list[str]:
    """The command line of a trial.

    Args:
        job: a resumed one goes on with its own options.
        threads: threads that step the environments, unless the trial's options set them; None leaves them. Those of the
            network follow OMP_NUM_THREADS, which the launcher sets.
    """
    trial = job.trial
    command = [sys.executable, "-m", "gsprune.cli", "train", trial.algorithm]
    if job.resumed:
        return [*command, "--resume", str(trial.folder)]
    command += ["--run-dir", str(trial.folder), "--env-id", trial.game, "--seed", str(trial.seed), *trial.arguments]
    if threads is not None and "--env-threads" not in trial.arguments:
        command += ["--env-threads", str(threads)]
    return command


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        step: environment steps so far.
        total: environment steps in all.
        episodic_return: mean return of the last 100 episodes, or None.
        sparsity: what the method counts.
        steps_per_second: of the last iteration.
        seconds: of training, in all processes.
    """

    step: int
    total: int
    episodic_return: float | None
    sparsity: float
    steps_per_second: float
    seconds: float


def read_progress(folder: Path) -> Progress | None:
    """The newest row of a run's metrics, or None before the first; reads only the end of the file."""
    try:
        total = int(json.loads((folder / "config.json").read_text())["total_timesteps"])
        with (folder / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _ROW_BYTES))
            lines = file.read().splitlines(keepends=True)
    except (OSError, ValueError, KeyError):
        return None
    # The last line may be half written, the first of the tail half read.
    complete = [line for line in lines if line.endswith(b"\n") and line.startswith(b"{")]
    if not complete:
        return None
    row = json.loads(complete[-1])
    return Progress(
        step=row["step"],
        total=total,
        episodic_return=row.get("charts/episodic_return"),
        sparsity=row.get("pruning/sparsity") or 0.0,
        steps_per_second=row.get("time/sps") or 0.0,
        seconds=row.get("time/seconds") or 0.0,
    )


def _job(trial: Trial) -> Job:
    if (trial.folder / "summary.json").is_file():
        return Job(trial, Status.SKIPPED)
    return Job(trial, resumed=(trial.folder / "config.json").is_file())


def _entry(trial: Trial) -> dict[str, Any]:
    return {
        "algorithm": trial.algorithm,
        "game": trial.game,
        "method": trial.method,
        "seed": trial.seed,
        "arguments": list(trial.arguments),
    }


def _words(entry: Any) -> str:
    return repr(" ".join([entry["algorithm"], *entry["arguments"]]))
