"""The main path from the command line: train, stop, go on, look at what is there."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gsprune.cli import main
from gsprune.rl.training.checkpoints import MODEL_FILE
from gsprune.rl.training.metrics import read_metrics

OPTIONS = [
    "--preset", "quick", "--total-timesteps", "256", "--num-envs", "4", "--num-steps", "8", "--num-minibatches", "2",
    "--torch-threads", "1", "--env-threads", "1", "--eval-episodes", "2", "--seed", "3", "--env-id", "bossfight",
]  # fmt: skip


def metrics(folder: Path) -> list[dict[str, object]]:
    return [{key: row[key] for key in row if not key.startswith("time/")} for row in read_metrics(folder)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("e2e") / "run"
    threads = torch.get_num_threads()
    assert main(["train", "ppo", *OPTIONS, "--run-dir", str(folder)]) == 0
    torch.set_num_threads(threads)
    return folder


def test_a_run_leaves_all_it_promises(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} >= {
        "config.json", "metrics.jsonl", "tensorboard", "checkpoints", "summary.json", "summary.md", "curves.png"
    }  # fmt: skip
    assert json.loads((finished / "config.json").read_text())["env_id"] == "bossfight"
    assert [row["step"] for row in read_metrics(finished)] == list(range(32, 257, 32))
    assert (finished / "curves.png").stat().st_size > 10_000


def test_the_summary_tells_sizes_latencies_and_returns(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["params"][0] == 110_160
    assert summary["params"][1] < 12_000
    widths = summary["widths"]
    assert widths["encoder.linear"] == [256, 52]
    assert sorted(after for _, after in widths.values()) == [4, 4, 4, 8, 8, 8, 8, 8, 8, 52]
    assert all(0 < ms <= worst for ms, worst in zip(summary["latency_ms"], summary["latency_p99_ms"], strict=True))
    assert summary["seconds"] == pytest.approx(read_metrics(finished)[-1]["time/seconds"], abs=0.5)
    assert summary["evaluation_seconds"] > 0
    assert isinstance(summary["train_return"], float)
    assert isinstance(summary["test_return"], float)
    table = (finished / "summary.md").read_text()
    assert "| parameters | 110,160 |" in table
    assert "| sparsity reached: channels | 0.7" in table


def test_inspect_shows_the_groups_of_run_checkpoint_and_network(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = max((finished / "checkpoints").iterdir())
    for target in (finished, checkpoint, checkpoint / MODEL_FILE):
        assert main(["inspect", str(target)]) == 0
        output = capsys.readouterr().out
        assert "names below encoder" in output
        assert re.search(r"^ +linear +\d+ +256 ", output, re.MULTILINE)
        assert "of 110,160" in output
        assert "never pruned: 15 channels of actor" in output.replace("\n", " ")
    assert main(["inspect", "--encoder", "impala", "--width", "1"]) == 0
    assert "parameters 626,256 of 626,256" in capsys.readouterr().out
    assert main(["inspect", str(finished), "--width", "1"]) == 2
    assert "has its own network; leave out --width or the path" in capsys.readouterr().err
    assert main(["inspect", str(finished / "tensorboard")]) == 2
    assert "neither a run folder nor a checkpoint" in capsys.readouterr().err


def test_a_finished_run_that_is_resumed_stays_as_it_is(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert main(["train", "ppo", "--resume", str(finished)]) == 0
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before
    assert f"the run is finished, nothing was changed; its results are in {finished}" in capsys.readouterr().out


def test_a_run_that_was_killed_before_its_evaluation_is_evaluated(finished: Path, tmp_path: Path) -> None:
    killed = tmp_path / "run"
    shutil.copytree(finished, killed)
    (killed / "summary.json").unlink()
    assert main(["train", "ppo", "--resume", str(killed)]) == 0
    returns = [json.loads((run / "summary.json").read_text())["test_return"] for run in (finished, killed)]
    assert returns[0] == returns[1]
    assert (killed / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()


def test_a_folder_of_runs_takes_no_run(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(finished.parent.iterdir())
    assert main(["train", "ppo", *OPTIONS, "--run-dir", str(finished.parent)]) == 2
    assert "holds other runs" in capsys.readouterr().err
    assert sorted(finished.parent.iterdir()) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path, finished: Path, number: int) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "gsprune.cli", "train", "ppo", *OPTIONS, "--run-dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step"):  # in the middle of the training
            process.send_signal(number)
            break
    rest = process.stdout.read()
    code = process.wait()
    process.stdout.close()
    if number == signal.SIGKILL:
        assert code == -signal.SIGKILL
    else:
        assert code == 130
        assert f"the checkpoint is in {folder / 'checkpoints'}" in rest
        assert f"resume with: gsprune train ppo --resume {folder}" in rest
    assert len(read_metrics(folder)) < 8
    assert main(["train", "ppo", "--resume", str(folder)]) == 0
    assert metrics(folder) == metrics(finished)
