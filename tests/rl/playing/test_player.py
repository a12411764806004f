from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from written_runs import write_run

from gsprune.rl.playing.player import players_of
from gsprune.rl.playing.rollout import Moment
from gsprune.rl.trained import load_agent


def test_a_caption_has_return_time_parameters_and_widths(tmp_path: Path) -> None:
    runs = write_run(tmp_path / "dense"), write_run(tmp_path / "pruned", sparsity=0.5)
    dense, pruned = players_of([load_agent(run) for run in runs])
    moment = Moment(np.zeros((3, 64, 64), np.uint8), 2, 0.1 + 0.2)
    assert dense.caption(moment)[:2] == ["dense", "return 0.3, episode 2"]
    assert dense.caption(moment)[3] == "widths 32 64 64 256"
    lines = pruned.caption(Moment(moment.frame, 2, 7.0, is_end=True))
    params = sum(parameter.numel() for parameter in pruned.agent.network.parameters())
    assert lines == [
        "pruned: 50% of channels removed",
        "return 7, episode 2 (end)",
        f"{pruned.milliseconds:.2f} ms per frame, {params:,} parameters",
        "widths 16 32 32 128",
    ]


def test_masks_are_not_called_dense(tmp_path: Path) -> None:
    (player,) = players_of([load_agent(write_run(tmp_path / "run", pruning="unstructured"))])
    assert player.title == "full size, unstructured"


def test_timing_leaves_the_random_stream_alone(tmp_path: Path) -> None:
    agent = load_agent(write_run(tmp_path / "run"))
    before = torch.get_rng_state()
    players_of([agent])
    assert torch.equal(torch.get_rng_state(), before)
