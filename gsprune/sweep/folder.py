"""The folder of a sweep: a manifest of its trials, a lock against a second sweep, and the progress of each run."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsprune.files import lock_file, write_atomically
from gsprune.rl.training.run_folder import is_finished
from gsprune.sweep.plan import Trial
from gsprune.sweep.runner import Job, Status

__all__ = ["Progress", "SweepFolder", "read_progress", "train_command"]

_MANIFEST = "sweep.json"
_LOCK = ".sweep.lock"
_TAIL_BYTES = 65_536  # holds several of the longest rows of metrics


class SweepFolder:
    """A sweep's folder. This process holds its lock until `close` or until the process ends.

    ``sweep.json`` lists the trials with their options. A resumed sweep must have the same options for the trials that
    have started; it may add trials.

    Args:
        path: the folder; created if missing.

    Raises:
        ValueError: another sweep has the lock, or the folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = lock_file(
                path / _LOCK,
                lambda owner: f"another sweep (process {owner}) works in {str(path)!r}; wait or stop it first",
            )
        except OSError as error:
            raise ValueError(
                f"the sweep's folder {str(path)!r} cannot be written ({error.strerror}); choose another --out"
            ) from error

    def close(self) -> None:
        """Release the lock."""
        self._lock.close()

    def jobs(self, trials: Sequence[Trial], dry_run: bool = False) -> list[Job]:
        """Create one job per trial and update ``sweep.json``, unless this is a dry run.

        Jobs of finished trials are skipped; jobs of interrupted trials are resumed.

        Raises:
            ValueError: a trial was started with other options, or ``sweep.json`` is damaged. Nothing is changed then.
        """
        saved = self._read_manifest()
        entries = {trial.folder.relative_to(self.path).as_posix(): _entry(trial) for trial in trials}
        for trial, (folder, entry) in zip(trials, entries.items(), strict=True):
            started = folder in saved and (trial.folder / "config.json").is_file()
            if started and saved[folder] != entry:
                raise ValueError(
                    f"{trial.name} was started with {_command_words(saved[folder])}, but the options are now "
                    f"{_command_words(entry)}; choose another --out, another method name, or delete {trial.folder}"
                )
        document = {"trials": [{"folder": folder, **entry} for folder, entry in (saved | entries).items()]}
        if not dry_run:
            write_atomically(self.path / _MANIFEST, json.dumps(document, indent=1).encode())
        return [_job(trial) for trial in trials]

    def _read_manifest(self) -> dict[str, dict[str, Any]]:
        file = self.path / _MANIFEST
        if not file.is_file():
            return {}
        try:
            trials = json.loads(file.read_text())["trials"]
            return {trial.pop("folder"): trial for trial in trials}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{str(file)!r} is damaged ({error}); delete it, and the sweep writes it again") from error


def train_command(job: Job, threads: int | None) -> list[str]:
    """The command line that trains a trial.

    Args:
        job: the trial's job. A resumed job continues with the options saved in its run folder.
        threads: ``--env-threads`` of trials that do not set it; None for the trainer's default. The launcher sets the
            network's threads by OMP_NUM_THREADS.
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
    """Progress of a run, from the newest row of its metrics.

    Attributes:
        step: environment steps so far.
        total: environment steps of the whole training.
        episodic_return: mean return of the last 100 episodes; None before the first episode ends.
        sparsity: fraction of channels that are removed, or of weights that are masked.
        steps_per_second: environment steps per second in the last iteration.
        seconds: training time over all resumptions.
    """

    step: int
    total: int
    episodic_return: float | None
    sparsity: float
    steps_per_second: float
    seconds: float


def read_progress(folder: Path) -> Progress | None:
    """Read the newest row of a run's metrics from the end of the file; None before the first row."""
    try:
        total = int(json.loads((folder / "config.json").read_text())["total_timesteps"])
        with (folder / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            lines = file.read().splitlines(keepends=True)
    except (OSError, ValueError, KeyError):
        return None
    # The trainer may be in the middle of the last line, and the tail may begin in the middle of a line.
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
    if is_finished(trial.folder):
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


def _command_words(entry: Any) -> str:
    return repr(" ".join([entry["algorithm"], *entry["arguments"]]))
