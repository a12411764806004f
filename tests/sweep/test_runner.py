from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from gsprune.sweep.launch import End, LocalLauncher, TrialProcess
from gsprune.sweep.plan import Trial
from gsprune.sweep.runner import Job, Runner, Status, log_path, variables_for

PATIENT = "import time; time.sleep(60)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
)


def make_jobs(folder: Path, count: int) -> list[Job]:
    return [Job(Trial("ppo", "bigfish", f"m{i}", 1, folder / f"m{i}" / "seed-1", ())) for i in range(count)]


def python(*scripts: str) -> Callable[[Job], Sequence[str]]:
    """The i-th job runs the i-th script, or all the only one."""

    def command(job: Job) -> Sequence[str]:
        return [sys.executable, "-c", scripts[int(job.trial.method[1:]) % len(scripts)]]

    return command


class WatchedLauncher(LocalLauncher):
    """Keeps the processes that it starts."""

    def __init__(self) -> None:
        super().__init__(1, variables_for(None))
        self.processes: list[TrialProcess] = []

    def start(self, command: Sequence[str], log: Path) -> TrialProcess:
        self.processes.append(super().start(command, log))
        return self.processes[-1]


def local(workers: int = 1, threads: int | None = None) -> LocalLauncher:
    return LocalLauncher(workers, variables_for(threads))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_failing_trial_is_reported_and_does_not_stop_the_others(tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, 3)
    launcher = WatchedLauncher()
    runner = Runner(jobs, python("pass", "print('out of memory'); raise SystemExit(7)", "pass"), launcher)
    runner.run()
    assert [job.status for job in jobs] == [Status.FINISHED, Status.FAILED, Status.FINISHED]
    assert (launcher.processes[1].poll(), jobs[1].message) == (End(7), "out of memory")
    assert not runner.interrupted


def test_no_more_processes_run_than_there_are_workers(tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, 5)
    seen: list[int] = []
    runner = Runner(jobs, python("import time; time.sleep(0.3)"), local(2))
    runner.run(on_poll=lambda: seen.append(sum(job.status is Status.RUNNING for job in jobs)))
    assert max(seen) == 2
    assert all(job.status is Status.FINISHED for job in jobs)


def test_jobs_that_do_not_wait_are_left_alone(tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, 2)
    jobs[0].status = Status.SKIPPED
    Runner(jobs, python("pass"), local()).run()
    assert [job.status for job in jobs] == [Status.SKIPPED, Status.FINISHED]
    assert not log_path(jobs[0].trial).exists()


def test_a_trial_waits_for_the_one_it_needs_and_others_go_first(tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, 3)
    jobs[0].trial = replace(jobs[0].trial, needs=jobs[2].trial.folder)
    order: list[str] = []

    def command(job: Job) -> Sequence[str]:
        order.append(job.trial.method)
        return [sys.executable, "-c", "pass"]

    Runner(jobs, command, local(2)).run()
    assert order == ["m1", "m2", "m0"]
    assert all(job.status is Status.FINISHED for job in jobs)


def test_a_trial_whose_need_failed_fails_without_being_started(tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, 2)
    jobs[1].trial = replace(jobs[1].trial, needs=jobs[0].trial.folder)
    Runner(jobs, python("raise SystemExit(3)"), local()).run()
    assert [job.status for job in jobs] == [Status.FAILED, Status.FAILED]
    assert jobs[1].message == f"needs {jobs[0].trial.folder}, which failed"
    assert not log_path(jobs[1].trial).exists()


def test_a_need_outside_the_sweep_or_finished_before_holds_nothing_up(tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, 2)
    jobs[0].status = Status.SKIPPED
    jobs[1].trial = replace(jobs[1].trial, needs=jobs[0].trial.folder)
    Runner(jobs, python("pass"), local()).run()
    assert jobs[1].status is Status.FINISHED


def test_output_is_appended_to_a_log_beside_the_run_folder(tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, 1)
    for _ in range(2):
        jobs[0].status = Status.WAITING
        Runner(jobs, python("import sys; print('out'); print('err', file=sys.stderr)"), local()).run()
    assert sorted((tmp_path / "m0" / "seed-1.log").read_text().split()) == ["err", "err", "out", "out"]
    assert not jobs[0].trial.folder.exists()


def test_each_process_gets_its_share_of_threads(tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, 1)
    Runner(jobs, python("import os; print(os.environ['OMP_NUM_THREADS'])"), local(threads=3)).run()
    assert log_path(jobs[0].trial).read_text().strip() == "3"


def test_a_program_that_is_not_there_is_a_failure_with_a_reason(tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, 2)
    Runner(jobs, lambda job: ["/no/such/python"] if job is jobs[0] else [sys.executable, "-c", "pass"], local()).run()
    assert [job.status for job in jobs] == [Status.FAILED, Status.FINISHED]
    assert jobs[0].message == "cannot start /no/such/python: No such file or directory"


def test_ctrl_c_asks_the_running_trials_to_stop_and_starts_no_more(tmp_path: Path) -> None:
    script = (
        "import signal, time, sys\n"
        "signal.signal(signal.SIGINT, lambda *_: (print('checkpoint', flush=True), sys.exit(130)))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)"
    )
    jobs = make_jobs(tmp_path, 3)
    runner = Runner(jobs, python(script), local(2))

    def interrupt() -> None:
        logs = [log_path(job.trial) for job in jobs[:2]]
        if not runner.interrupted and all(log.exists() and "ready" in log.read_text() for log in logs):
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    runner.run(on_poll=interrupt)
    assert signal.getsignal(signal.SIGINT) is before
    assert [job.status for job in jobs] == [Status.STOPPED] * 3
    assert [log_path(job.trial).read_text().split() for job in jobs[:2]] == [["ready", "checkpoint"]] * 2
    assert not log_path(jobs[2].trial).exists()


@pytest.mark.parametrize("second", [True, False], ids=["second Ctrl-C", "grace period over"])
def test_a_trial_that_does_not_stop_is_killed(tmp_path: Path, second: bool) -> None:
    jobs, launcher = make_jobs(tmp_path, 1), WatchedLauncher()
    runner = Runner(jobs, python(STUBBORN), launcher, grace_seconds=60.0 if second else 0.5)

    def interrupt() -> None:
        log = log_path(jobs[0].trial)
        ready = log.exists() and "ready" in log.read_text()
        if ready and (not runner.interrupted or (second and jobs[0].status is Status.STOPPING)):
            runner.stop()

    begin = time.monotonic()
    runner.run(on_poll=interrupt)
    assert time.monotonic() - begin < 30
    assert (jobs[0].status, launcher.processes[0].poll()) == (Status.STOPPED, End(-signal.SIGKILL))


def test_an_error_of_the_caller_leaves_no_process_behind(tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, 1)
    pids = tmp_path / "pid"
    script = f"import os, pathlib; pathlib.Path({str(pids)!r}).write_text(str(os.getpid())); {PATIENT}"

    def fail() -> None:
        if pids.exists() and pids.read_text():
            raise RuntimeError("the terminal is gone")

    with pytest.raises(RuntimeError, match="terminal is gone"):
        Runner(jobs, python(script), local()).run(on_poll=fail)
    assert not alive(int(pids.read_text()))


def test_it_runs_outside_the_main_thread_too(tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, 1)
    thread = threading.Thread(target=Runner(jobs, python("pass"), local()).run)
    thread.start()
    thread.join(30)
    assert jobs[0].status is Status.FINISHED


@pytest.mark.parametrize(("workers", "threads"), [(0, None), (1, 0)])
def test_nonsensical_numbers_are_refused(workers: int, threads: int | None) -> None:
    with pytest.raises(ValueError, match=r"must be at least 1, got 0"):
        local(workers, threads)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the system tells of a parent's end on Linux only")
def test_trials_die_with_a_sweep_that_is_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pid"
    trial = f"import os, pathlib; pathlib.Path({str(pids)!r}).write_text(str(os.getpid())); {PATIENT}"
    sweep = (
        "import sys\nfrom pathlib import Path\nfrom gsprune.sweep.plan import Trial\n"
        "from gsprune.sweep.runner import Job, Runner\nfrom gsprune.sweep.launch import LocalLauncher\n"
        f"job = Job(Trial('ppo', 'bigfish', 'm0', 1, Path({str(tmp_path)!r}) / 'm0' / 'seed-1', ()))\n"
        f"Runner([job], lambda job: [sys.executable, '-c', {trial!r}], LocalLauncher(1, {{}})).run()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", sweep])
    wait_until(lambda: pids.exists() and pids.read_text() != "")
    pid = int(pids.read_text())
    assert alive(pid)
    process.kill()
    process.wait()
    wait_until(lambda: not alive(pid))


class Fragile:
    """A launcher on which the first worker is lost."""

    def __init__(self, local: LocalLauncher, losses: int) -> None:
        self.local = local
        self.losses = losses

    def room(self, running: int) -> int:
        return self.local.room(running)

    def start(self, command: Sequence[str], log: Path) -> TrialProcess:
        task = self.local.start(command, log)
        if self.losses > 0:
            self.losses -= 1
            task.kill()
            task.wait()
            task.poll = lambda: End(-9, lost=True)  # type: ignore[method-assign]
        return task


@pytest.mark.parametrize(("losses", "status"), [(3, Status.FINISHED), (4, Status.FAILED)])
def test_a_trial_whose_worker_is_lost_is_taken_up_again_three_times(
    tmp_path: Path, losses: int, status: Status
) -> None:
    jobs = make_jobs(tmp_path, 1)
    jobs[0].trial.folder.mkdir(parents=True)
    (jobs[0].trial.folder / "config.json").write_text("{}")
    resumed: list[bool] = []

    def command(job: Job) -> Sequence[str]:
        resumed.append(job.resumed)
        return [sys.executable, "-c", "pass"]

    Runner(jobs, command, Fragile(local(), losses)).run()
    assert jobs[0].status is status
    assert resumed == [False, True, True, True]
