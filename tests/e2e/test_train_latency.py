"""``--target latency`` from the command line; the clock is one that counts parameters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gsprune.cli import main
from gsprune.pruning import latency_target
from gsprune.rl.training.metrics import read_metrics

OPTIONS = [
    "--preset", "quick", "--encoder", "nature", "--total-timesteps", "256", "--num-envs", "4", "--batch-size", "8",
    "--log-interval", "8", "--learning-starts", "64", "--replay-capacity", "128", "--replay-spare", "128",
    "--prune-interval", "4", "--torch-threads", "1", "--env-threads", "1", "--eval-episodes", "0", "--round-to", "1",
    "--target", "latency",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def milliseconds(model: nn.Module, *_: Any) -> float:
        return sum(parameter.numel() for parameter in model.parameters()) / 1e5

    monkeypatch.setattr(latency_target, "_measured_milliseconds", milliseconds)
    monkeypatch.setenv("GSPRUNE_CACHE", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_dqn_ends_at_the_budget_and_tells_what_its_engine_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "dqn", *OPTIONS, "--latency-budget-ms", "1", "--run-dir", str(tmp_path / "run")]) == 0
    assert read_metrics(tmp_path / "run")[-1]["pruning/params"] == pytest.approx(1e5, rel=0.1)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert all(milliseconds > 0 for milliseconds in summary["budgeted_ms"])
    said = capsys.readouterr().out
    assert "latency as budgeted" in said
    assert "1 ms in eager (1 thread, batch 1)" in said


def test_a_budget_that_nothing_meets_is_an_error_that_leaves_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert main(["train", "dqn", *OPTIONS, "--latency-budget-ms", "0.001", "--run-dir", str(folder)]) == 2
    assert "is 0.001 ms in eager (1 thread, batch 1)" in capsys.readouterr().err
    assert not folder.exists()
