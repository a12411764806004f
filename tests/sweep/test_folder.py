from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gsprune.sweep.folder import SweepFolder, read_progress, train_command
from gsprune.sweep.plan import Study, Trial
from gsprune.sweep.runner import Job, Status


def trials(out: Path, seeds: tuple[int, ...] = (1, 2), **options: Any) -> list[Trial]:
    return Study(games=("bigfish",), seeds=seeds, methods={"group": {"pruning": "group", **options}}).trials(out)


def begin(trial: Trial, *, checkpoint: bool = False, finished: bool = False) -> None:
    trial.folder.mkdir(parents=True)
    (trial.folder / "config.json").write_text('{"total_timesteps": 1000}')
    if checkpoint:
        (trial.folder / "checkpoints" / "step-000000000100").mkdir(parents=True)
    if finished:
        (trial.folder / "summary.json").write_text("{}")


def statuses(out: Path, asked: list[Trial]) -> list[tuple[Status, bool]]:
    folder = SweepFolder(out)
    try:
        return [(job.status, job.resumed) for job in folder.jobs(asked)]
    finally:
        folder.close()


def test_finished_trials_are_skipped_interrupted_ones_resumed_and_new_ones_begun(tmp_path: Path) -> None:
    asked = trials(tmp_path, (1, 2, 3))
    begin(asked[0], checkpoint=True, finished=True)
    begin(asked[1], checkpoint=True)
    assert statuses(tmp_path, asked) == [(Status.SKIPPED, False), (Status.WAITING, True), (Status.WAITING, False)]


def test_a_run_killed_before_its_first_checkpoint_is_resumed_which_begins_it_again(tmp_path: Path) -> None:
    (trial,) = trials(tmp_path, (1,))
    begin(trial)
    assert statuses(tmp_path, [trial]) == [(Status.WAITING, True)]


def test_a_dry_run_changes_nothing_on_disk(tmp_path: Path) -> None:
    (trial,) = trials(tmp_path, (1,))
    begin(trial)
    folder = SweepFolder(tmp_path)
    assert [job.status for job in folder.jobs([trial], dry_run=True)] == [Status.WAITING]
    folder.close()
    assert trial.folder.exists()
    assert not (tmp_path / "sweep.json").exists()


def test_the_manifest_lists_every_trial_and_grows(tmp_path: Path) -> None:
    statuses(tmp_path, trials(tmp_path, (1,)))
    statuses(tmp_path, trials(tmp_path, (2,)))
    listed = json.loads((tmp_path / "sweep.json").read_text())["trials"]
    assert [trial["folder"] for trial in listed] == ["bigfish/group/seed-1", "bigfish/group/seed-2"]
    assert listed[0]["method"] == "group"
    assert listed[0]["arguments"] == ["--pruning", "group"]


def test_a_trial_cannot_go_on_with_other_options(tmp_path: Path) -> None:
    (trial,) = trials(tmp_path, (1,))
    statuses(tmp_path, [trial])
    begin(trial, checkpoint=True)
    manifest = (tmp_path / "sweep.json").read_bytes()
    with pytest.raises(
        ValueError, match=r"was started with 'ppo --pruning group', .* '.*--sparsity 0.5'; choose another --out"
    ):
        statuses(tmp_path, trials(tmp_path, (1,), sparsity=0.5))
    assert (tmp_path / "sweep.json").read_bytes() == manifest


def test_a_trial_that_was_never_begun_may_change_its_options(tmp_path: Path) -> None:
    statuses(tmp_path, trials(tmp_path, (1,)))
    assert statuses(tmp_path, trials(tmp_path, (1,), sparsity=0.5)) == [(Status.WAITING, False)]


def test_two_sweeps_cannot_share_a_folder(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path)
    with pytest.raises(ValueError, match=r"another sweep \(process \d+\) works in"):
        SweepFolder(tmp_path)
    folder.close()
    SweepFolder(tmp_path).close()


def test_a_sweep_that_was_killed_leaves_no_lock(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys, gsprune.sweep.folder as f; x = f.SweepFolder(pathlib.Path(sys.argv[1])); os._exit(9)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    assert subprocess.run(command, cwd=Path(__file__).parents[2], check=False).returncode == 9
    assert (tmp_path / ".sweep.lock").exists()
    SweepFolder(tmp_path).close()


def test_a_damaged_manifest_and_an_unwritable_folder_are_named(tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text("[")
    with pytest.raises(ValueError, match=r"sweep\.json' is damaged .* delete it"):
        statuses(tmp_path, trials(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot be written .*choose another --out"):
        SweepFolder(tmp_path / "file")


def test_a_new_trial_gets_its_folder_game_seed_options_and_threads(tmp_path: Path) -> None:
    (trial,) = trials(tmp_path, (7,), torch_threads=3)
    command = train_command(Job(trial), threads=2)
    assert command[:5] == [sys.executable, "-m", "gsprune.cli", "train", "ppo"]
    assert command[5:] == [
        "--run-dir", str(trial.folder), "--env-id", "bigfish", "--seed", "7", "--pruning", "group",
        "--torch-threads", "3", "--env-threads", "2",
    ]  # fmt: skip


def test_a_resumed_trial_goes_on_with_its_own_options(tmp_path: Path) -> None:
    (trial,) = trials(tmp_path, (7,))
    command = train_command(Job(trial, resumed=True), threads=2)
    assert command[5:] == ["--resume", str(trial.folder)]


def test_progress_is_the_newest_complete_row(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"total_timesteps": 1000}')
    assert read_progress(tmp_path) is None
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("")
    assert read_progress(tmp_path) is None
    rows = [{"step": step, "charts/episodic_return": None, "time/sps": 5.0, "time/seconds": 3.0} for step in (10, 20)]
    metrics.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 3')
    progress = read_progress(tmp_path)
    assert progress is not None
    assert (progress.step, progress.total, progress.episodic_return, progress.sparsity) == (20, 1000, None, 0.0)


def test_progress_of_a_long_run_is_read_from_the_end_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"total_timesteps": 1000}')
    with (tmp_path / "metrics.jsonl").open("w") as file:
        for step in range(2_000):
            file.write(json.dumps({"step": step, "padding": "x" * 100}) + "\n")
    progress = read_progress(tmp_path)
    assert progress is not None
    assert progress.step == 1_999
