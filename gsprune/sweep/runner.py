"""Runs trials in processes: so many at a time, stopped together, one failure does not stop the others."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from gsprune.interrupts.handlers import SignalHandlers
from gsprune.sweep.launch import Launcher, Task
from gsprune.sweep.plan import Trial

__all__ = ["Job", "Runner", "Status", "log_path", "variables_for"]

_POLL_SECONDS = 0.2
_LOG_TAIL_BYTES = 4_096
_MOST_RESTARTS = 3
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Status(enum.Enum):
    """Where a trial stands; the value is what the table shows."""

    WAITING = "waiting"
    RUNNING = "running"
    STOPPING = "stopping"
    FINISHED = "finished"
    SKIPPED = "finished before"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass
class Job:
    """A trial and how far it is.

    Attributes:
        trial: what is run.
        status: where it stands.
        resumed: whether it goes on from an earlier sweep's checkpoint.
        seconds: wall-clock of this process so far, or in all once it has ended.
        exit_code: of the process, once it has ended; negative for a signal.
        message: the last line of a failed process's log.
        restarts: how often it was taken up again because its worker was lost.
    """

    trial: Trial
    status: Status = Status.WAITING
    resumed: bool = False
    seconds: float = 0.0
    exit_code: int | None = None
    message: str = ""
    restarts: int = 0


@dataclass
class _Running:
    job: Job
    task: Task
    started: float


class Runner:
    """Works through jobs with as many processes as there is room for.

    A trial whose worker is lost (not: that fails) is taken up again from its last checkpoint, three times at most.
    Every process leads a session of its own, so that Ctrl-C in the terminal reaches this process alone, which then
    asks each trial to stop (SIGINT: it writes its checkpoint), and kills what is left after a grace period, or at the
    second Ctrl-C. Where this process itself is killed, its trials are, too.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        command: Callable[[Job], Sequence[str]],
        launcher: Launcher,
        grace_seconds: float = 120.0,
    ) -> None:
        """Prepare; nothing is started.

        Args:
            jobs: in the order in which they start; those that are not WAITING are left alone.
            command: the command line of a job.
            launcher: where they run.
            grace_seconds: how long a trial may take to stop.
        """
        self.jobs = list(jobs)
        self._command = command
        self._launcher = launcher
        self._grace_seconds = grace_seconds
        self._running: list[_Running] = []
        self._stop_requests = 0
        self._stop_deadline = float("inf")

    @property
    def interrupted(self) -> bool:
        """Whether a signal asked the sweep to stop."""
        return self._stop_requests > 0

    def run(self, on_change: Callable[[], None] = lambda: None, on_poll: Callable[[], None] = lambda: None) -> None:
        """Run all waiting jobs; returns when they have ended, or have been stopped.

        Args:
            on_change: called after a job's status has changed.
            on_poll: called a few times a second.
        """
        with _StopOnSignal(self.stop):
            try:
                while self._start_and_reap(on_change):
                    on_poll()
                    time.sleep(_POLL_SECONDS)
            finally:
                self._kill()
        on_change()

    def stop(self) -> None:
        """Ask all trials to stop; a second call kills them. Safe to call from a signal handler."""
        self._stop_requests += 1

    def _start_and_reap(self, on_change: Callable[[], None]) -> bool:
        """One turn of the loop; whether there is anything left to wait for."""
        before = [job.status for job in self.jobs]
        self._reap()
        if [job.status for job in self.jobs] != before:
            on_change()  # before a lost trial runs again
            before = [job.status for job in self.jobs]
        if self.interrupted:
            self._pass_on_stop()
        else:
            for job in self._ready():
                if self._launcher.room(len(self._running)) < 1:
                    break
                self._start(job)
        if [job.status for job in self.jobs] != before:
            on_change()
        return bool(self._running) or any(job.status is Status.WAITING for job in self.jobs)

    def _ready(self) -> list[Job]:
        """Waiting jobs that need no other, or a finished one; those whose need has failed fail too."""
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

    def _start(self, job: Job) -> None:
        task = self._launcher.start(list(self._command(job)), log_path(job.trial))
        job.status = Status.RUNNING
        self._running.append(_Running(job, task, time.monotonic()))

    def _reap(self) -> None:
        for running in list(self._running):
            job = running.job
            job.seconds = time.monotonic() - running.started
            end = running.task.poll()
            if end is None:
                continue
            self._running.remove(running)
            job.exit_code = end.code
            if end.code == 0 and job.status is Status.RUNNING:
                job.status = Status.FINISHED
            elif self.interrupted:
                job.status = Status.STOPPED
            elif end.lost and job.restarts < _MOST_RESTARTS:
                job.restarts += 1
                job.status, job.resumed = Status.WAITING, (job.trial.folder / "config.json").is_file()
            else:
                job.status, job.message = Status.FAILED, _last_line(log_path(job.trial)) or f"exit code {end.code}"

    def _pass_on_stop(self) -> None:
        now = time.monotonic()
        for running in self._running:
            if running.job.status is Status.RUNNING:
                running.job.status = Status.STOPPING
                running.task.interrupt()
                self._stop_deadline = min(self._stop_deadline, now + self._grace_seconds)
        if self._stop_requests > 1 or now > self._stop_deadline:
            self._kill()
        for job in self.jobs:
            if job.status is Status.WAITING:
                job.status = Status.STOPPED

    def _kill(self) -> None:
        for running in self._running:
            running.task.kill()
        for running in self._running:
            running.task.wait()


class _StopOnSignal(SignalHandlers):
    """SIGINT and SIGTERM stop the sweep instead of raising."""

    def __init__(self, stop: Callable[[], None]) -> None:
        super().__init__()
        self._stop = stop

    def handle(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._stop()


def variables_for(threads: int | None) -> dict[str, str]:
    """Environment variables of a trial with so many threads for linear algebra; None leaves it to the libraries.

    Raises:
        ValueError: `threads` below 1.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"`threads` must be at least 1, got {threads}; leave it out for the libraries' choice")
    # Else `python -m` would import what lies in the current folder (a clone's sources) before what is installed.
    variables = {"PYTHONSAFEPATH": "1"}
    return variables if threads is None else variables | dict.fromkeys(_THREAD_VARIABLES, str(threads))


def log_path(trial: Trial) -> Path:
    """Where a trial's output goes: beside its run folder, which belongs to the trainer."""
    return trial.folder.with_name(f"{trial.folder.name}.log")


def _last_line(path: Path) -> str:
    """What a log says last: its last line that speaks of an error, else its last line; "" if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LOG_TAIL_BYTES))
            tail = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or [""])[-1]
