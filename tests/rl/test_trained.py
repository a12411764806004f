from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gsprune
from gsprune.errors import CheckpointError
from gsprune.networks import ActorCritic, QNetwork, build_encoder, example_frames
from gsprune.rl import trained
from gsprune.rl.envs.procgen import NUM_ACTIONS
from gsprune.rl.trained import load_agent
from gsprune.rl.training.checkpoints import checkpoint_folders, save_checkpoint


def write_run(folder: Path, algorithm: str, steps: list[int], sparsity: float = 0.0) -> list[torch.Tensor]:
    """A run with a checkpoint per step, the last pruned; returns each one's output for the example frames."""
    folder.mkdir()
    config = {"algorithm": algorithm, "env_id": "bigfish", "seed": 1, "encoder": "impoola", "width": 1}
    (folder / "config.json").write_text(json.dumps(config))
    outputs = []
    for step in steps:
        torch.manual_seed(step)
        heads: Any = QNetwork if algorithm == "dqn" else ActorCritic
        model = heads(build_encoder("impoola", 1), NUM_ACTIONS)
        optimizer = torch.optim.Adam(model.parameters())
        if sparsity and step == steps[-1]:
            gsprune.prune_step(model, sparsity, example_inputs=example_frames(), optimizer=optimizer)
        save_checkpoint(folder / "checkpoints", step, model, optimizer, {})
        with torch.no_grad():
            out = model(example_frames())
        outputs.append(out if algorithm == "dqn" else out[0])
    return outputs


@pytest.mark.parametrize("algorithm", ["ppo", "dqn"])
def test_the_newest_checkpoint_is_read_at_the_width_it_was_pruned_to(tmp_path: Path, algorithm: str) -> None:
    outputs = write_run(tmp_path / "run", algorithm, [100, 200], sparsity=0.5)
    agent = load_agent(tmp_path / "run")
    assert agent.step == 200
    assert agent.checkpoint.name == "step-000000000200"
    with torch.no_grad():
        out = agent.network(example_frames())
    torch.testing.assert_close(out if algorithm == "dqn" else out[0], outputs[1])
    assert agent.network.encoder.linear.out_features == 128
    assert not agent.network.training


def test_ppo_samples_and_dqn_is_greedy(tmp_path: Path) -> None:
    frames = torch.zeros(64, 3, 64, 64, dtype=torch.uint8)
    for algorithm, acts, distinct in [("ppo", "sampled", True), ("dqn", "greedy", False)]:
        write_run(tmp_path / algorithm, algorithm, [1])
        agent = load_agent(tmp_path / algorithm)
        actions = agent.policy(torch.Generator().manual_seed(0))(frames)
        assert agent.acts == acts
        assert (len(np.unique(actions)) > 1) == distinct


def test_a_damaged_checkpoint_is_passed_over_and_said(tmp_path: Path) -> None:
    write_run(tmp_path / "run", "ppo", [100, 200])
    newest = checkpoint_folders(tmp_path / "run" / "checkpoints")[-1]
    (newest / "model.safetensors").write_bytes(b"")
    agent = load_agent(tmp_path / "run")
    assert agent.step == 100
    assert "step-000000000200 is damaged" in agent.complaints[0]


def test_a_checkpoint_that_vanishes_while_it_is_read_is_replaced_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "run", "ppo", [100, 200])
    load = gsprune.load
    calls = []

    def vanish(path: Path, **options: Any) -> Any:
        calls.append(path)
        if len(calls) < 3:
            raise FileNotFoundError(path)
        return load(path, **options)

    monkeypatch.setattr(trained.gsprune, "load", vanish)
    assert load_agent(str(tmp_path / "run")).step == 200
    assert len(calls) == 3


def test_no_usable_checkpoint_is_an_error(tmp_path: Path) -> None:
    write_run(tmp_path / "run", "ppo", [])
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        load_agent(tmp_path / "run")
    with pytest.raises(ValueError, match="is not a run folder"):
        load_agent(tmp_path)


def test_reading_changes_nothing_in_the_run_folder(tmp_path: Path) -> None:
    write_run(tmp_path / "run", "ppo", [100])
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    load_agent(tmp_path / "run")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before
