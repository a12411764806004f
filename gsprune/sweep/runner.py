"""The runner of a sweep: it starts, watches and stops the processes of trials."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from gsprune.checks import check_whole
from gsprune.interrupts.handlers import SignalHandlers
from gsprune.sweep.launch import Launcher, TrialProcess
from gsprune.sweep.plan import Trial

__all__ = ["Job", "Runner", "Status", "log_path", "variables_for"]

_POLL_SECONDS = 0.2
_LOG_TAIL_BYTES = 4_096
_MAX_RESTARTS = 3
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Status(enum.Enum):
    """State of a job. Its value is the text in the progress table."""

    WAITING = "waiting"
    RUNNING = "running"
    STOPPING = "stopping"
    FINISHED = "finished"
    SKIPPED = "finished before"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass
class Job:
    """The execution of a trial in this sweep.

    Attributes:
        trial: the trial.
        status: its state.
        resumed: True if the trial continues the run in its folder.
        seconds: wall-clock time of the current or last process.
        message: cause of a failure: the last error line of the log.
        restarts: number of restarts after a lost Ray worker.
    """

    trial: Trial
    status: Status = Status.WAITING
    resumed: bool = False
    seconds: float = 0.0
    message: str = ""
    restarts: int = 0


@dataclass
class _Running:
    job: Job
    process: TrialProcess
    started: float


class Runner:
    """Runs jobs in as many processes as the launcher has room for. A failed job does not stop the others.

    A trial whose Ray worker is lost restarts from its last checkpoint, at most three times. A failed trial does not
    restart.

    Every process has its own session, so that Ctrl-C in the terminal reaches only the runner. At the first Ctrl-C the
    runner sends SIGINT to each trial, which writes a checkpoint and stops. At the second, or after the grace period,
    it kills the remaining trials. If the runner itself is killed, the system kills the trials.

    Args:
        jobs: the jobs, in starting order. Only those with status WAITING are started.
        command: returns the command line of a job.
        launcher: starts the processes.
        grace_seconds: time that a trial may take to stop.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        command: Callable[[Job], Sequence[str]],
        launcher: Launcher,
        grace_seconds: float = 120.0,
    ) -> None:
        self.jobs = list(jobs)
        self._command = command
        self._launcher = launcher
        self._grace_seconds = grace_seconds
        self._running: list[_Running] = []
        self._stop_requests = 0
        self._stop_deadline = float("inf")

    @property
    def interrupted(self) -> bool:
        """True if a signal requested a stop."""
        return self._stop_requests > 0

    def run(self, on_poll: Callable[[], None] = lambda: None) -> None:
        """Run all waiting jobs until they have ended or were stopped.

        Args:
            on_poll: called a few times per second: after jobs have ended, and after others have started.
        """
        with _StopOnSignal(self.stop):
            try:
                while True:
                    self._reap()
                    on_poll()  # shows a lost trial as waiting before it restarts
                    if self.interrupted:
                        self._pass_on_stop()
                    else:
                        self._start_ready()
                    on_poll()
                    if not self._running and not any(job.status is Status.WAITING for job in self.jobs):
                        break
                    time.sleep(_POLL_SECONDS)
            finally:
                self._kill()

    def stop(self) -> None:
        """Ask all trials to stop; a second call kills them. Signal handlers may call this."""
        self._stop_requests += 1

    def _start_ready(self) -> None:
        for job in self._ready():
            if self._launcher.room(len(self._running)) < 1:
                break
            process = self._launcher.start(list(self._command(job)), log_path(job.trial))
            job.status = Status.RUNNING
            self._running.append(_Running(job, process, time.monotonic()))

    def _ready(self) -> list[Job]:
        """Waiting jobs that can start. A job fails if the job that it needs has failed."""
        status = {job.trial.folder: job.status for job in self.jobs}
        ready = []
        for job in self.jobs:
            needed = None if job.trial.needs is None else status.get(job.trial.needs)
            if job.status is not Status.WAITING or needed in (Status.WAITING, Status.RUNNING):
                continue
            if needed is Status.FAILED:
                job.status, job.message = Status.FAILED, f"needs {job.trial.needs}, which failed"
            else:
                ready.append(job)
        return ready

    def _reap(self) -> None:
        for running in list(self._running):
            job = running.job
            job.seconds = time.monotonic() - running.started
            end = running.process.poll()
            if end is None:
                continue
            self._running.remove(running)
            if end.code == 0 and job.status is Status.RUNNING:
                job.status = Status.FINISHED
            elif self.interrupted:
                job.status = Status.STOPPED
            elif end.lost and job.restarts < _MAX_RESTARTS:
                job.restarts += 1
                job.status, job.resumed = Status.WAITING, (job.trial.folder / "config.json").is_file()
            else:
                job.status, job.message = Status.FAILED, _last_line(log_path(job.trial)) or f"exit code {end.code}"

    def _pass_on_stop(self) -> None:
        now = time.monotonic()
        for running in self._running:
            if running.job.status is Status.RUNNING:
                running.job.status = Status.STOPPING
                running.process.interrupt()
                self._stop_deadline = min(self._stop_deadline, now + self._grace_seconds)
        if self._stop_requests > 1 or now > self._stop_deadline:
            self._kill()
        for job in self.jobs:
            if job.status is Status.WAITING:
                job.status = Status.STOPPED

    def _kill(self) -> None:
        for running in self._running:
            running.process.kill()
        for running in self._running:
            running.process.wait()


class _StopOnSignal(SignalHandlers):
    """Stops the sweep at SIGINT and SIGTERM instead of raising an error."""

    def __init__(self, stop: Callable[[], None]) -> None:
        super().__init__()
        self._stop = stop

    def handle(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._stop()


def variables_for(threads: int | None) -> dict[str, str]:
    """Environment variables of a trial.

    Args:
        threads: number of threads for linear algebra, >= 1; None for the libraries' default.

    Raises:
        ValueError: `threads` is below 1.
    """
    # Without it, `python -m` would import a clone's sources in the current folder before the installed package.
    variables = {"PYTHONSAFEPATH": "1"}
    if threads is not None:
        variables |= dict.fromkeys(_THREAD_VARIABLES, str(check_whole("threads", threads, at_least=1)))
    return variables


def log_path(trial: Trial) -> Path:
    """The log file of a trial. It is next to the run folder, because only the trainer writes into the folder."""
    return trial.folder.with_name(f"{trial.folder.name}.log")


def _last_line(path: Path) -> str:
    """The last line of a log that mentions an error, or else its last line; "" for an empty log."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LOG_TAIL_BYTES))
            tail = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or [""])[-1]
