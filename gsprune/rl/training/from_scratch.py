"""Small networks that were small from the start: what a pruned network must be better than."""

from __future__ import annotations

from pathlib import Path

import gsprune
from gsprune.networks import Agent
from gsprune.rl.training.checkpoints import MODEL_FILE, latest_checkpoint

__all__ = ["take_widths"]


def take_widths(agent: Agent, run: Path) -> None:
    """Give a fresh agent the widths at which a run has arrived, and no more of it: all weights are drawn anew.

    Args:
        agent: dense, of the encoder, width and algorithm of the run.
        run: the run's folder.

    Raises:
        CheckpointError: the run has no undamaged checkpoint, or is of another network; the agent is as before.
    """
    checkpoint, _ = latest_checkpoint(run / "checkpoints")
    gsprune.load(checkpoint / MODEL_FILE, into=agent)
    agent.reset_parameters()
