"""Small networks that were small from the start: what a pruned network must be better than."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

import gsprune
from gsprune.rl.training.checkpoints import MODEL_FILE, latest_checkpoint

__all__ = ["take_widths"]


def take_widths(agent: nn.Module, run: Path) -> None:
    """Give a fresh agent the widths at which a run has arrived, and no more of it: all weights are drawn anew.

    Args:
        agent: dense, of the encoder, width and algorithm of the run.
        run: the run's folder.

    Raises:
        ValueError: the agent's network cannot draw its weights anew.
        CheckpointError: the run has no undamaged checkpoint, or is of another network; the agent is as before.
    """
    draw_anew: Callable[[], None] | None = getattr(agent, "reset_parameters", None)
    if draw_anew is None:
        raise ValueError(
            f"`widths_of` draws all weights anew, so {type(agent).__name__} needs a method reset_parameters()"
        )
    checkpoint, _ = latest_checkpoint(run / "checkpoints")
    gsprune.load(checkpoint / MODEL_FILE, into=agent)
    draw_anew()
