"""Sums over the running episodes of a vector environment."""

from __future__ import annotations

from typing import Any

import numpy as np

from gsprune.arrays import AnyArray, BoolArray

__all__ = ["EpisodeSums"]


class EpisodeSums:
    """Returns and lengths of the running episodes, and the infos of those that end.

    Attributes:
        returns: (N,) float64, sums of rewards so far.
        lengths: (N,) int64, steps so far.
    """

    def __init__(self, num_envs: int) -> None:
        """Begin N episodes."""
        self.returns = np.zeros(num_envs, np.float64)
        self.lengths = np.zeros(num_envs, np.int64)

    def reset(self) -> None:
        """Begin new episodes everywhere."""
        self.returns[:] = 0
        self.lengths[:] = 0

    def add(self, rewards: AnyArray, ended: BoolArray) -> dict[str, Any]:
        """Add one step.

        Args:
            rewards: (N,) as the game gave them.
            ended: (N,) where the step ended an episode.

        Returns:
            ``{"episode": {"r": returns, "l": lengths}, "_episode": mask}`` if an episode has ended, else nothing.

        Raises:
            ValueError: a reward is NaN or infinite.
        """
        if not np.isfinite(rewards).all():
            env = int(np.argmin(np.isfinite(rewards)))
            raise ValueError(
                f"environment {env} returned the reward {rewards[env]}, which must be finite: one such reward would"
                " make all weights NaN"
            )
        self.returns += rewards
        self.lengths += 1
        if not ended.any():
            return {}
        infos = {"episode": {"r": self.returns.copy(), "l": self.lengths.copy()}, "_episode": ended.copy()}
        self.returns[ended] = 0
        self.lengths[ended] = 0
        return infos
