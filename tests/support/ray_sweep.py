"""A sweep of two trials on a Ray of this machine; the worker of the first is killed while both run.

A trial here is a small program: it writes its process, then waits, unless it is taken up again. Prints JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from gsprune.sweep.plan import Trial
from gsprune.sweep.ray_launcher import RayLauncher
from gsprune.sweep.runner import Job, Runner

_TRIAL = """
import os, pathlib, sys, time
folder = pathlib.Path(sys.argv[1]); folder.mkdir(parents=True, exist_ok=True)
(folder / "config.json").write_text("{}")
others = [folder.parent / name for name in ("first", "second")]
with (folder / "lives").open("a") as file:
    file.write(f"{os.getpid()} {os.getppid()}\\n")
print("resumed" if "--resume" in sys.argv else "begun", flush=True)
deadline = time.monotonic() + 600
while time.monotonic() < deadline:
    lives = [(other / "lives").read_text().splitlines() if (other / "lives").exists() else [] for other in others]
    if len(lives[0]) == 2 and lives[1]:  # the first was taken up again, and both have run at the same time
        break
    time.sleep(0.1)
else:
    sys.exit(3)
"""


def _has_ended(process: int) -> bool:
    """Whether it is gone, or waits to be reaped by whatever has adopted it."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def main(folder: Path) -> None:
    """Run the sweep."""
    jobs = [Job(Trial("ppo", "bigfish", name, 1, folder / name, ())) for name in ("first", "second")]
    launcher = RayLauncher({}, cpus=0.5, workers=2)
    statuses: list[list[str]] = []
    killed: list[int] = []

    def command(job: Job) -> list[str]:
        resume = ["--resume"] if job.resumed else []
        return [sys.executable, "-c", _TRIAL, str(job.trial.folder), *resume]

    def on_poll() -> None:
        present = [job.status.value for job in jobs]
        if not statuses or present != statuses[-1]:
            statuses.append(present)
        lives = [job.trial.folder / "lives" for job in jobs]
        if not killed and all(file.exists() and file.read_text().endswith("\n") for file in lives):
            trial, worker = map(int, lives[0].read_text().split())
            killed.append(trial)
            os.kill(worker, signal.SIGKILL)

    Runner(jobs, command, launcher).run(on_poll)
    time.sleep(0.5)
    outcome = {
        "statuses": [job.status.value for job in jobs],
        "restarts": [job.restarts for job in jobs],
        "seen": statuses,
        "the killed worker's trial has ended": _has_ended(killed[0]),
        "logs": [(folder / f"{name}.log").read_text().split() for name in ("first", "second")],
    }
    launcher.close()
    sys.stdout.write(json.dumps(outcome) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
