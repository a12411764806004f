"""Run folders: one run each, one process at a time, files that are whole."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gsprune.rl.training.run_folder import RunFolder, read_config


def test_a_new_run_keeps_its_options(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "a" / "b", "ppo", {"seed": 3}).close()
    assert read_config(tmp_path / "a" / "b") == {"algorithm": "ppo", "seed": 3}


def test_a_folder_with_a_run_is_not_overwritten(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, "ppo", {"seed": 3}).close()
    with pytest.raises(ValueError, match="holds a run already; resume it with --resume"):
        RunFolder.create(tmp_path, "ppo", {"seed": 4})
    assert read_config(tmp_path)["seed"] == 3


def test_a_folder_that_holds_other_runs_is_refused_and_other_programs_files_are_not_runs(tmp_path: Path) -> None:
    (tmp_path / "tool").mkdir()
    (tmp_path / "tool" / "config.json").write_text('{"version": 1}')
    RunFolder.create(tmp_path, "ppo", {}).close()
    for place in ("a", "game/method/seed-1"):
        RunFolder.create(tmp_path / "sweep" / place, "ppo", {}).close()
        with pytest.raises(ValueError, match=f"holds other runs, such as '.*{place}'; choose a folder of its own"):
            RunFolder.create(tmp_path / "sweep", "ppo", {})
        assert not (tmp_path / "sweep" / "config.json").exists()
        shutil.rmtree(tmp_path / "sweep")


def test_a_run_in_use_is_left_alone_and_free_again_when_its_process_dies(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from gsprune.rl.training.run_folder import RunFolder\n"
        f"run = RunFolder.create(Path({str(tmp_path)!r}), 'ppo', {{}}); print('ready', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    with pytest.raises(ValueError, match=f"in use by process {process.pid}"):
        RunFolder.open(tmp_path)
    process.kill()
    process.wait()
    process.stdout.close()
    RunFolder.open(tmp_path).close()


def test_a_folder_that_cannot_be_made_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot be written \(Not a directory\); choose another with --run-dir"):
        RunFolder.create(tmp_path / "file" / "run", "ppo", {})


def test_a_run_that_cannot_begin_takes_back_what_it_made_and_nothing_else(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "new" / "run", "ppo", {})
    (run.path / "replay.bin").write_bytes(b"frames")
    (run.path / "tensorboard").mkdir()
    run.undo_create()
    run.close()
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "notes").write_text("mine")
    run = RunFolder.create(tmp_path / "old", "ppo", {})
    run.undo_create()
    run.close()
    assert [file.name for file in (tmp_path / "old").iterdir()] == ["notes"]


def test_a_run_that_was_there_before_is_not_taken_back(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, "ppo", {"seed": 3}).close()
    run = RunFolder.open(tmp_path)
    run.undo_create()
    run.close()
    RunFolder.without_lock(tmp_path).undo_create()
    assert read_config(tmp_path)["seed"] == 3


def test_a_run_with_a_checkpoint_is_not_taken_back(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "ppo", {"seed": 3})
    (run.checkpoints / "step-000000000000").mkdir(parents=True)
    run.undo_create()
    run.close()
    assert read_config(tmp_path)["seed"] == 3


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a run folder"):
        RunFolder.open(tmp_path / "missing")
