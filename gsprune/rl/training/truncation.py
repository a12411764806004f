"""Episodes that a time limit ended, although the game would have gone on.

Their last observation has a value, which a return must count (Pardo et al. 2018, https://arxiv.org/abs/1712.00378).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from gsprune.arrays import BoolArray, IntArray, Uint8Array

__all__ = ["Truncated", "truncated_episodes"]


class Truncated(NamedTuple):
    """The truncated episodes of one step.

    Attributes:
        envs: (B,) int64, numbers of their environments.
        observations: (B, C, H, W) uint8, their last observations.
    """

    envs: IntArray
    observations: Uint8Array


def truncated_episodes(terminated: BoolArray, truncated: BoolArray, infos: Mapping[str, Any]) -> Truncated | None:
    """The episodes that a step truncated.

    Args:
        terminated: (N,) where the game ended.
        truncated: (N,) where a limit ended the episode.
        infos: of the step; ``final_obs[i]`` is the last observation of environment i.

    Returns:
        None without such episodes.

    Raises:
        ValueError: the environments do not report the last observations.
    """
    envs = np.flatnonzero(truncated & ~terminated)
    if len(envs) == 0:
        return None
    if "final_obs" not in infos:
        raise ValueError(
            f"a step has truncated the episode of environment {envs[0]}, but its infos have no last observation; put it"
            f" into infos['final_obs'][{envs[0]}], or report `terminated` if the game has ended"
        )
    return Truncated(envs, np.stack([infos["final_obs"][env] for env in envs]))
