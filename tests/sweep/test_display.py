from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console

from gsprune.sweep.display import SweepDisplay, sweep_table
from gsprune.sweep.plan import Trial
from gsprune.sweep.runner import Job, Status


def make_jobs(folder: Path, *status: Status) -> list[Job]:
    return [
        Job(Trial("ppo", "bigfish", f"m{i}", 1, folder / f"m{i}" / "seed-1", ()), one) for i, one in enumerate(status)
    ]


def rendered(jobs: list[Job], max_rows: int = 50) -> str:
    console = Console(file=io.StringIO(), width=120)
    with console.capture() as capture:
        console.print(sweep_table(jobs, max_rows))
    return capture.get()


def test_a_running_trial_shows_how_far_it_is(tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, Status.RUNNING, Status.WAITING)
    folder = jobs[0].trial.folder
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"total_timesteps": 200000}')
    row = {
        "step": 50_000,
        "charts/episodic_return": 3.456,
        "pruning/sparsity": 0.25,
        "time/sps": 99.6,
        "time/seconds": 500,
    }
    (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    text = rendered(jobs)
    line = next(line for line in text.splitlines() if "m0/seed-1" in line)
    assert [cell.strip() for cell in line.split("│")[1:-1]] == [
        "bigfish/m0/seed-1", "running", "50k of 200k", "3.46", "0.25", "100", "8 min 20 s",
    ]  # fmt: skip
    assert "1 running, 1 waiting" in text


def test_where_not_all_rows_fit_the_running_and_failed_ones_are_shown(tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, *[Status.SKIPPED] * 10, *[Status.WAITING] * 10, Status.FAILED, Status.RUNNING)
    text = rendered(jobs, max_rows=6)
    assert "m20/seed-1" in text
    assert "m21/seed-1" in text
    assert text.count("seed-1") == 6
    assert "(16 not shown)" in text


def test_without_a_terminal_every_change_is_a_line(tmp_path: Path) -> None:
    second, first = jobs = make_jobs(tmp_path, Status.WAITING, Status.WAITING)
    output = io.StringIO()
    with SweepDisplay(Console(file=output, width=40), jobs) as display:
        first.status = Status.RUNNING
        display.on_poll()
        display.on_poll()
        first.status, first.seconds, first.message = Status.FAILED, 61.0, "ValueError: [1, 2] is no seed"
        second.status, second.resumed = Status.RUNNING, True
        display.on_poll()
        display.on_poll()
    assert output.getvalue().splitlines() == [
        "bigfish/m1/seed-1: running",
        f"bigfish/m1/seed-1: failed after 1 min 01 s: ValueError: [1, 2] is no seed (log: {tmp_path}/m1/seed-1.log)",
        "bigfish/m0/seed-1: running again, from its last checkpoint",
    ]


def test_in_a_terminal_the_table_is_drawn_and_failures_stay_above_it(tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, Status.RUNNING)
    output = io.StringIO()
    with SweepDisplay(Console(file=output, width=200, height=40, force_terminal=True), jobs) as display:
        jobs[0].status, jobs[0].message = Status.FAILED, "no memory"
        display.on_poll()
    text = output.getvalue()
    assert text.count("sweep of 1 trial ") >= 2
    assert "no memory" in text
