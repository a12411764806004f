"""The summary of a run: how it times networks, and which time is the training's."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from gsprune.rl.algorithms.ppo.config import PRESETS
from gsprune.rl.training.network_size import NetworkSize
from gsprune.rl.training.summary import RunSummary, summarize, write_summary


class Network(nn.Module):
    """Notes PyTorch's number of threads at every forward."""

    threads: list[int] = []  # noqa: RUF012 - shared by all copies, as engines time copies

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 64 * 64, 2)

    def forward(self, frames: Tensor) -> Tensor:
        self.threads.append(torch.get_num_threads())
        return self.linear(frames.flatten(1).float())


class Evaluations:
    """An evaluation takes ten minutes."""

    seconds = 5.0

    def run(self, episodes: int) -> dict[str, float]:
        self.seconds += 600.0
        return {"eval/train_return": 1.0, "eval/test_return": 0.5}


class FinishedTrainer:
    """A trainer at the end of its training."""

    environment = SimpleNamespace(observation_shape=(3, 64, 64))
    dense = size = NetworkSize({"group": 2}, 2, 2.0)
    global_step, sparsity = 600, 0.0
    seconds = 60.0
    agent = Network()

    def __init__(self) -> None:
        self.evaluations = Evaluations()

    def build_dense(self) -> nn.Module:
        return Network()


@pytest.fixture(scope="module")
def summary() -> RunSummary:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    Network.threads.clear()
    try:
        return summarize(FinishedTrainer(), PRESETS["quick"])
    finally:
        assert torch.get_num_threads() == 2
        torch.set_num_threads(threads)


def test_latencies_are_those_of_one_thread_whatever_the_training_had(summary: RunSummary) -> None:
    timed = Network.threads[-100:]  # the first calls prepare the network
    assert timed == [1] * 100
    assert all(0 < median <= worst for median, worst in zip(summary.latency_ms, summary.latency_p99_ms, strict=True))


def test_training_time_and_evaluation_time_are_told_apart(summary: RunSummary) -> None:
    rows = dict(summary.result_rows())
    assert rows["training time"] == "60 s, 10 steps/s"
    assert rows["evaluation time"] == "605 s"


def test_the_file_that_marks_a_run_as_finished_is_written_last(
    summary: RunSummary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def die(self: Path, target: Path) -> Path:
        if target.suffix == ".md":
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            write_summary(summary, tmp_path)
    assert not (tmp_path / "summary.json").exists()
    write_summary(summary, tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text())["evaluation_seconds"] == 605.0
