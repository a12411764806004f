"""The networks that the scripts for GPUs run on: those of the benches, and a tiny one for dry runs."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bench"))
from networks import NETWORKS, Make, with_moments

__all__ = ["Make", "networks", "with_moments"]


def _tiny() -> tuple[nn.Module, Tensor]:
    """A network for the dry run, and an example."""
    layers = (nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.Flatten(), nn.Linear(96, 5))
    return nn.Sequential(*layers), torch.zeros(1, 3, 8, 8)


def networks(dry_run: bool) -> dict[str, Make]:
    """Name -> what makes the network and an example of its input."""
    return {"tiny": _tiny} if dry_run else NETWORKS
