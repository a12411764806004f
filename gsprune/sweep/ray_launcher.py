"""Trials on the machines of a Ray cluster, one actor each.

The actor starts the trial's process on its machine and waits for it; where the actor ends, its process does (see
`lifeline`). The run folders must lie on a file system that all machines see: a trial that is taken up again elsewhere
finds its checkpoint there, and the table reads its metrics.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gsprune.errors import MissingExtraError
from gsprune.sweep.launch import End, Task, start_process

__all__ = ["RayLauncher"]

_KILLED = -9


class _Worker:
    """What runs on the cluster; `run` and `interrupt` are called at the same time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, command: Sequence[str], log: str, variables: Mapping[str, str]) -> int:
        """Run a Python program, by the Python of this machine, to its end; returns its exit code."""
        self._process = start_process([sys.executable, *command[1:]], Path(log), variables)
        return self._process.wait()

    def interrupt(self) -> None:
        """Ask it to stop."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)


class RayLauncher:
    """As many trials at a time as the cluster has room for.

    Args:
        variables: set in the environment of each trial.
        address: of a running cluster, as in ``ray.init``; None takes what the environment variable RAY_ADDRESS names,
            else starts Ray on this machine.
        cpus: of each trial, above 0.
        gpus: of each trial; a fraction shares one.
        workers: trials at a time at most; None for as many as fit.

    Raises:
        MissingExtraError: ray is not installed.
        ValueError: a number is out of range, or the cluster is too small for one trial.
    """

    def __init__(
        self,
        variables: Mapping[str, str],
        address: str | None = None,
        cpus: float = 1.0,
        gpus: float = 0.0,
        workers: int | None = None,
    ) -> None:
        if not cpus > 0:
            raise ValueError(f"`cpus_per_trial` must be above 0, got {cpus}")
        if gpus < 0:
            raise ValueError(f"`gpus_per_trial` must be at least 0, got {gpus}")
        # Its usage report and its notices are none of the sweep's.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise MissingExtraError("ray", "distributed") from error
        self._ray = ray
        self._variables = dict(variables)
        self._need = {"CPU": cpus, "GPU": gpus}
        self._most = workers
        if not ray.is_initialized():
            here = {} if address or os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}
            with _current_folder(Path(__file__).parents[2]):
                ray.init(address=address, log_to_driver=False, logging_level="ERROR", **here)
        if self._places() < 1:
            has = ray.cluster_resources()
            raise ValueError(
                f"the cluster has {has.get('CPU', 0):g} CPUs and {has.get('GPU', 0):g} GPUs, too little for one trial "
                f"with {cpus:g} and {gpus:g}; ask for less with --cpus-per-trial and --gpus-per-trial"
            )
        self._actor = ray.remote(_Worker).options(
            num_cpus=cpus, num_gpus=gpus, max_concurrency=2, max_restarts=0, max_task_retries=0
        )

    def room(self, running: int) -> int:
        """See `Launcher.room`; machines may come and go."""
        places = self._places()
        return (places if self._most is None else min(places, self._most)) - running

    def start(self, command: Sequence[str], log: Path) -> Task:
        """See `Launcher.start`."""
        actor = self._actor.remote()
        return _RayTask(self._ray, actor, actor.run.remote(list(command), str(log), self._variables))

    def close(self) -> None:
        """Leave the cluster; one that was started for this sweep ends."""
        self._ray.shutdown()

    def _places(self) -> int:
        has = self._ray.cluster_resources()
        return int(min(has.get(name, 0) / need for name, need in self._need.items() if need > 0))


@contextmanager
def _current_folder(folder: Path) -> Iterator[None]:
    """Be in the folder of the installed packages while Ray starts: its workers import from the current one first.

    In a clone beside an installed package they would import its sources, which have no compiled core.
    """
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


class _RayTask:
    def __init__(self, ray: Any, actor: Any, result: Any) -> None:
        self._ray = ray
        self._actor = actor
        self._result = result

    def poll(self) -> End | None:
        ready, _ = self._ray.wait([self._result], timeout=0)
        if not ready:
            return None
        try:
            return End(self._ray.get(self._result))
        except self._ray.exceptions.RayTaskError as error:
            raise RuntimeError(f"a trial could not be started on the cluster: {error}") from error
        except self._ray.exceptions.RayError:
            return End(_KILLED, lost=True)

    def interrupt(self) -> None:
        self._actor.interrupt.remote()

    def kill(self) -> None:
        self._ray.kill(self._actor)

    def wait(self) -> None:
        self._ray.wait([self._result])
