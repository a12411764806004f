"""DQN from the command line, killed in the midst of it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from gsprune.cli import main
from gsprune.rl.training.metrics import read_metrics

OPTIONS = [
    "--preset", "quick", "--encoder", "nature", "--total-timesteps", "640", "--num-envs", "4", "--batch-size", "8",
    "--log-interval", "8", "--learning-starts", "64", "--replay-capacity", "320", "--replay-spare", "320",
    "--target-interval", "96", "--torch-threads", "1", "--env-threads", "1", "--eval-episodes", "2",
]  # fmt: skip


def metrics(folder: Path) -> list[dict[str, object]]:
    return [{key: row[key] for key in row if not key.startswith("time/")} for row in read_metrics(folder)]


def rows_written(folder: Path) -> int:
    file = folder / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def test_a_run_killed_between_two_checkpoints_goes_on_to_the_same_metrics(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main(["train", "dqn", *OPTIONS, "--run-dir", str(whole)]) == 0
    command = [sys.executable, "-m", "gsprune.cli", "train", "dqn", *OPTIONS, "--run-dir", str(killed)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        # The spare rows allow five iterations without a checkpoint: seven are two ahead of the last one.
        while rows_written(killed) < 7 and process.poll() is None:
            time.sleep(0.005)
        process.kill()
    assert 7 <= rows_written(killed) < 20
    assert main(["train", "dqn", "--resume", str(killed)]) == 0
    assert metrics(killed) == metrics(whole)
    assert [row["step"] for row in metrics(whole)] == list(range(32, 641, 32))
    summary = json.loads((killed / "summary.json").read_text())
    assert summary["widths"]["encoder.linear"] == [256, 52]
