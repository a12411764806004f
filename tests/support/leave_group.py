"""Run by torchrun: prints the threads of gloo that are still there after the group was left.

Arguments: the path of a script that joins and leaves by itself, or nothing for `joined_ranks`.
"""

import runpy
import sys
from pathlib import Path

import torch
from torch import nn

import gsprune
from gsprune.distributed.ranks import Ranks, joined_ranks


def _train(ranks: Ranks) -> None:
    """What a training does that could keep the group alive: an optimizer, collectives, a step with the group."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.Adam(model.parameters())
    gsprune.prune_step(model, 0.5, optimizer=optimizer, example_inputs=torch.ones(2, 3), process_group=ranks.group)
    ranks.any(True)


if len(sys.argv) > 1:
    runpy.run_path(sys.argv[1], run_name="__main__")
else:
    with joined_ranks(with_gpus=False, timeout_minutes=1.0) as ranks:
        _train(ranks)
names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
sys.stdout.write(f"left: {sorted(name for name in names if 'gloo' in name)}\n")
