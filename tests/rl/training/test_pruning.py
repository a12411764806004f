"""The pruning method of a trainer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import gsprune
from gsprune.distributed.ranks import Ranks
from gsprune.networks import ActorCritic, build_encoder
from gsprune.rl.algorithms.ppo.config import PRESETS
from gsprune.rl.training.pruning import GroupPruning


def test_all_frames_of_an_event_calibrate_in_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[tuple[int, ...]]] = []
    step = gsprune.Pruner.step

    def spy(pruner: gsprune.Pruner, progress: float) -> gsprune.PruneReport:
        seen.append([tuple(batch.shape) for batch in method._calibration])
        return step(pruner, progress)

    monkeypatch.setattr(gsprune.Pruner, "step", spy)
    torch.manual_seed(0)
    network = ActorCritic(build_encoder("nature", 1, (3, 64, 64), 32), 4)
    config = replace(PRESETS["quick"], compensate="linear", sparsity=0.5, round_to=1)
    method = GroupPruning(network, torch.optim.Adam(network.parameters()), config, (3, 64, 64), (), Ranks())
    report = method.step(0.9, torch.randint(0, 256, (200, 3, 64, 64), dtype=torch.uint8))
    assert seen == [[(200, 3, 64, 64)]]
    assert report.compensation is not None
    assert report.sparsity == pytest.approx(0.5)
