"""Small networks trained from scratch: the baseline that a pruned network must beat."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

import gsprune
from gsprune.rl.training.checkpoints import MODEL_FILE, latest_checkpoint

__all__ = ["take_widths"]


def take_widths(agent: nn.Module, run: Path) -> None:
    """Give an untrained dense agent the present widths of a run of its kind, and initialise all weights again.

    Raises:
        ValueError: the agent's network cannot initialise its weights again.
        CheckpointError: the run has no undamaged checkpoint, or one of another network; the agent is not changed.
    """
    reset_parameters: Callable[[], None] | None = getattr(agent, "reset_parameters", None)
    if reset_parameters is None:
        raise ValueError(
            f"`widths_of` initialises all weights again, so {type(agent).__name__} needs a method reset_parameters()"
        )
    checkpoint, _ = latest_checkpoint(run / "checkpoints", [MODEL_FILE])
    gsprune.load(checkpoint / MODEL_FILE, into=agent)
    reset_parameters()
