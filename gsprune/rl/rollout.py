"""One rollout of a vector environment, in memory that is allocated once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gsprune.networks import FRAME_CHANNELS, FRAME_SIDE
from gsprune.rl.returns import explained_variance, gae

__all__ = ["Minibatch", "Rollout"]


class Minibatch(NamedTuple):
    """Some of a rollout's transitions, on the training device.

    Attributes:
        frames: (B, 3, 64, 64) uint8, channels last.
        actions: (B,) int64.
        logprobs: (B,) float32, under the policy that acted.
        advantages: (B,) float32.
        returns: (B,) float32, targets of the value function.
    """

    frames: Tensor
    actions: Tensor
    logprobs: Tensor
    advantages: Tensor
    returns: Tensor


class Rollout:
    """T steps of N environments; time runs along the first axis.

    Attributes:
        frames: (T, N, 3, 64, 64) uint8 with colours last in memory; what the agent saw before acting.
        actions: (T, N) int64.
        logprobs: (T, N) float32.
        values: (T + 1, N) float32; the last row is the value of what follows the rollout.
        rewards: (T, N) float32 on the host; received for the action.
        discounts: (T, N) float32 on the host; gamma, or 0 where the action ended an episode.
    """

    def __init__(self, num_steps: int, num_envs: int, device: torch.device) -> None:
        """Allocate: about 12.3 kB per step and environment."""
        shape = (num_steps, num_envs)
        frames = torch.empty((*shape, FRAME_SIDE, FRAME_SIDE, FRAME_CHANNELS), dtype=torch.uint8, device=device)
        self.frames = frames.permute(0, 1, 4, 2, 3)
        self.actions = torch.empty(shape, dtype=torch.int64, device=device)
        self.logprobs = torch.empty(shape, device=device)
        self.values = torch.empty((num_steps + 1, num_envs), device=device)
        self.rewards = np.empty(shape, np.float32)
        self.discounts = np.empty(shape, np.float32)
        self._advantages = torch.empty(shape, device=device)
        self._returns = torch.empty(shape, device=device)

    @property
    def batch_size(self) -> int:
        """T * N."""
        return self.rewards.size

    def finish(self, gae_lambda: float) -> float:
        """Compute advantages and returns of a complete rollout.

        Returns:
            how much of the returns' variance the values explain.
        """
        values = self.values.cpu().numpy()
        advantages = gae(self.rewards, values, self.discounts, gae_lambda)
        returns = advantages + values[:-1]
        self._advantages.copy_(torch.from_numpy(advantages))
        self._returns.copy_(torch.from_numpy(returns))
        return explained_variance(values[:-1], returns)

    def minibatch(self, indices: Tensor) -> Minibatch:
        """The transitions at `indices`, (B,) int64 in [0, T * N), copied."""
        # Rows of the memory as it lies, so that each frame is copied as one block.
        rows = self.frames.permute(0, 1, 3, 4, 2).flatten(0, 1)
        return Minibatch(
            rows.index_select(0, indices).permute(0, 3, 1, 2),
            self.actions.flatten().index_select(0, indices),
            self.logprobs.flatten().index_select(0, indices),
            self._advantages.flatten().index_select(0, indices),
            self._returns.flatten().index_select(0, indices),
        )
