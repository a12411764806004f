"""Runs trials on the machines of a Ray cluster, one actor per trial.

The actor starts the trial's process on its machine and waits for it. The process is killed when the actor ends (see
`lifeline`). The run folders must be on a file system that all machines share, because a trial that restarts on another
machine reads its checkpoint there, and the progress table reads the metrics.
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

from gsprune.checks import check_number
from gsprune.errors import needs
from gsprune.sweep.launch import End, TrialProcess, start_process

__all__ = ["RayLauncher"]

_KILLED = -9


class _Worker:
    """The actor of a trial. Ray calls `interrupt` while `run` is still running."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, command: Sequence[str], log: str, variables: Mapping[str, str]) -> int:
        """Run a Python program with this machine's interpreter and return its exit code."""
        self._process = start_process([sys.executable, *command[1:]], Path(log), variables)
        return self._process.wait()

    def interrupt(self) -> None:
        """Send SIGINT to the program."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)


class RayLauncher:
    """Runs as many trials at a time as fit into the cluster.

    Args:
        variables: environment variables of every trial.
        address: address of a running cluster, as in ``ray.init``. None takes the environment variable RAY_ADDRESS; if
            that is unset, Ray starts on this machine.
        cpus: CPUs per trial, above 0.
        gpus: GPUs per trial, >= 0; with a fraction, trials share a GPU.
        workers: maximum number of trials at a time; None for as many as fit.

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
        check_number("cpus_per_trial", cpus, above=0)
        check_number("gpus_per_trial", gpus, at_least=0)
        # Disable Ray's usage report, and its notice about CUDA_VISIBLE_DEVICES of trials without a GPU.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        with needs("ray", "distributed"):
            ray: Any = importlib.import_module("ray")
        self._ray = ray
        self._variables = dict(variables)
        self._resources = {"CPU": cpus, "GPU": gpus}
        self._max_workers = workers
        if not ray.is_initialized():
            options = {} if address or os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}
            with _current_folder(Path(__file__).parents[2]):
                ray.init(address=address, log_to_driver=False, logging_level="ERROR", **options)
        if self._capacity() < 1:
            available = ray.cluster_resources()
            raise ValueError(
                f"the cluster has {available.get('CPU', 0):g} CPUs and {available.get('GPU', 0):g} GPUs, too few for"
                f" one trial with {cpus:g} and {gpus:g}; request fewer with --cpus-per-trial and --gpus-per-trial"
            )
        self._actor = ray.remote(_Worker).options(
            num_cpus=cpus, num_gpus=gpus, max_concurrency=2, max_restarts=0, max_task_retries=0
        )

    def room(self, running: int) -> int:
        """See `Launcher.room`. Machines may join or leave the cluster at any time."""
        capacity = self._capacity()
        return (capacity if self._max_workers is None else min(capacity, self._max_workers)) - running

    def start(self, command: Sequence[str], log: Path) -> TrialProcess:
        """See `Launcher.start`."""
        actor = self._actor.remote()
        return _RayProcess(self._ray, actor, actor.run.remote(list(command), str(log), self._variables))

    def close(self) -> None:
        """Disconnect from the cluster. If this launcher started Ray, Ray ends."""
        self._ray.shutdown()

    def _capacity(self) -> int:
        """The number of trials that fit into the whole cluster."""
        available = self._ray.cluster_resources()
        return int(min(available.get(name, 0) / count for name, count in self._resources.items() if count > 0))


@contextmanager
def _current_folder(folder: Path) -> Iterator[None]:
    """Change the working directory within the block.

    Ray's workers import from the folder in which Ray started. In a clone they would import the clone's sources, which
    have no compiled core, instead of the installed package.
    """
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


class _RayProcess:
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
