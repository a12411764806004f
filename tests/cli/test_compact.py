"""`gsprune compact` writes the smaller network of a run, and leaves the run alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import gsprune
from gsprune.cli import main
from gsprune.networks import example_frames
from gsprune.rl.envs.provider import EnvironmentRequest
from gsprune.rl.envs.registry import describe
from gsprune.rl.trained import TrainedAgent, dense_network
from gsprune.rl.training.checkpoints import MODEL_FILE

OPTIONS = {"algorithm": "ppo", "env_id": "bigfish", "encoder": "nature", "width": 1}


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TrainedAgent:
    """An agent of which half of a hidden layer is dead."""
    torch.manual_seed(0)
    network, _ = dense_network(OPTIONS)
    with torch.no_grad():
        hidden = next(m for m in network.modules() if isinstance(m, torch.nn.Linear))
        hidden.weight[::2] = 0
    environment = describe(EnvironmentRequest.of_run(OPTIONS))
    agent = TrainedAgent(network.eval(), OPTIONS, environment, tmp_path, 5, torch.device("cpu"), ())
    monkeypatch.setattr("gsprune.cli.console.load_agent", lambda run, device: agent)
    return agent


def test_the_written_network_is_smaller_and_computes_the_same(
    agent: TrainedAgent, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = example_frames(observation_shape=agent.environment.observation_shape)
    expected = agent.network(frames)
    assert main(["compact", str(tmp_path)]) == 0
    assert "compacted: " in capsys.readouterr().out
    small, _ = dense_network(OPTIONS)
    before = sum(p.numel() for p in small.parameters())
    assert gsprune.load(tmp_path / "compact" / MODEL_FILE, into=small)["step"] == 5
    assert sum(p.numel() for p in small.parameters()) < 0.7 * before
    for got, output in zip(small.eval()(frames), expected, strict=True):
        torch.testing.assert_close(got, output)


def test_a_dry_run_writes_nothing(agent: TrainedAgent, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compact", str(tmp_path), "--dry-run"]) == 0
    assert "would remove" in capsys.readouterr().out
    assert not (tmp_path / "compact").exists()


def test_too_few_frames_are_refused(agent: TrainedAgent, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compact", str(tmp_path), "--calibration-frames", "-1"]) == 2
    assert "`calibration_frames` must be at least 0" in capsys.readouterr().err
