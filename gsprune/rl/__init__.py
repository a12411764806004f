"""Reinforcement learning: training, evaluation and export of agents whose networks shrink while they train."""

from __future__ import annotations

from typing import Any

__all__ = ["train"]


def __getattr__(name: str) -> Any:
    """Import `train` at the first access, because it needs gymnasium."""
    if name == "train":
        from gsprune.rl.run import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
