"""Run folders with one checkpoint, as a training leaves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

import gsprune
from gsprune.networks import ActorCritic, QNetwork, build_encoder, example_frames
from gsprune.rl.envs.procgen import NUM_ACTIONS
from gsprune.rl.training.checkpoints import save_checkpoint

__all__ = ["write_run"]


def write_run(folder: Path, algorithm: str = "ppo", sparsity: float = 0.0, **options: Any) -> Path:
    """Write a run of a small untrained agent, pruned to `sparsity` of its channels."""
    folder.mkdir()
    config = {
        "algorithm": algorithm, "env_id": "bigfish", "distribution_mode": "easy", "seed": 1, "encoder": "nature",
        "width": 1, "pruning": "group" if sparsity else "none", **options,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    heads: Any = QNetwork if algorithm == "dqn" else ActorCritic
    model = heads(build_encoder("nature", 1), NUM_ACTIONS)
    optimizer = torch.optim.Adam(model.parameters())
    if sparsity:
        gsprune.prune_step(model, sparsity, example_inputs=example_frames(), optimizer=optimizer)
    save_checkpoint(folder / "checkpoints", 512, model, optimizer, {})
    return folder
