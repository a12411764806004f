"""One rollout of a vector environment, in memory that is allocated once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gsprune.arrays import FloatArray
from gsprune.networks import ObservationShape
from gsprune.rl.algorithms.ppo.losses import normalized
from gsprune.rl.algorithms.ppo.returns import explained_variance, gae

__all__ = ["Minibatch", "Rollout"]


class Minibatch(NamedTuple):
    """Transitions of a rollout, on the training device.

    Attributes:
        frames: (B, C, H, W) uint8, channels last.
        actions: (B, *action_shape).
        logprobs: (B,) float32, log probabilities under the policy that acted.
        advantages: (B,) float32.
        returns: (B,) float32, targets of the value function.
        values: (B,) float32, predicted when the rollout was played.
    """

    frames: Tensor
    actions: Tensor
    logprobs: Tensor
    advantages: Tensor
    returns: Tensor
    values: Tensor


class Rollout:
    """T steps of N environments; time runs along the first axis.

    Attributes:
        frames: (T, N, C, H, W) uint8 with channels last in memory; the observations before acting.
        actions: (T, N, *action_shape).
        logprobs: (T, N) float32.
        values: (T + 1, N) float32; the last row has the values of the states after the rollout.
        rewards: (T, N) float32 on the host; the environment's unscaled rewards for the actions.
        ended: (T, N) bool on the host; True if the action ended an episode.
        final_values: (T, N) float32 on the host; the value of the last observation if the action truncated an episode,
            which no row of `values` has; else 0.
    """

    def __init__(
        self,
        num_steps: int,
        num_envs: int,
        device: torch.device,
        share: range,
        *,
        observation_shape: ObservationShape,
        action_shape: tuple[int, ...],
        action_dtype: torch.dtype,
    ) -> None:
        """Allocate the memory of all steps.

        Args:
            num_steps: T.
            num_envs: number of environments of all processes together.
            device: the network's device.
            share: the numbers of this process's N environments among all. The attributes have only these environments;
                indices, advantages and returns refer to all environments.
            observation_shape: (C, H, W) of one observation.
            action_shape: shape of one action; () for one number.
            action_dtype: dtype of actions.
        """
        self._num_envs = num_envs
        self._share = share
        shape = (num_steps, len(share))
        channels, height, width = observation_shape
        frames = torch.empty((*shape, height, width, channels), dtype=torch.uint8, device=device)
        self.frames = frames.permute(0, 1, 4, 2, 3)
        self.actions = torch.empty((*shape, *action_shape), dtype=action_dtype, device=device)
        self.logprobs = torch.empty(shape, device=device)
        self.values = torch.empty((num_steps + 1, len(share)), device=device)
        self.rewards = np.empty(shape, np.float32)
        self.ended = np.empty(shape, np.bool_)
        self.final_values = np.zeros(shape, np.float32)
        self._advantages = torch.empty(num_steps * num_envs, device=device)
        self._returns = torch.empty(num_steps * num_envs, device=device)

    def finish(self, rewards: FloatArray, values: FloatArray, discounts: FloatArray, gae_lambda: float) -> float:
        """Compute advantages and returns of a complete rollout, for all environments.

        Args:
            rewards: (T, all environments) float32, scaled like the values.
            values: (T + 1, all environments) float32.
            discounts: (T, all environments) float32; gamma, or 0 where the step ended an episode.
            gae_lambda: trade-off between bias (0) and variance (1).

        Returns:
            the explained variance of the values.
        """
        advantages = gae(rewards, values, discounts, gae_lambda)
        returns = advantages + values[:-1]
        self._advantages.copy_(torch.from_numpy(advantages.ravel()))
        self._returns.copy_(torch.from_numpy(returns.ravel()))
        return explained_variance(values[:-1], returns)

    def minibatch(self, indices: Tensor, normalize: bool = False) -> Minibatch:
        """Copies of this process's transitions among those with the given indices.

        Args:
            indices: (B,) int64 in [0, T * all environments).
            normalize: scale the B advantages of all processes to mean 0 and standard deviation 1.
        """
        advantages = self._advantages.index_select(0, indices)
        if normalize:
            advantages = normalized(advantages)
        returns = self._returns.index_select(0, indices)
        if len(self._share) < self._num_envs:
            steps, envs = indices // self._num_envs, indices % self._num_envs
            is_own = (envs >= self._share.start) & (envs < self._share.stop)
            indices = (steps * len(self._share) + envs - self._share.start)[is_own]
            advantages, returns = advantages[is_own], returns[is_own]
        return Minibatch(
            self.frames_at(indices),
            self.actions.flatten(0, 1).index_select(0, indices),
            self.logprobs.flatten().index_select(0, indices),
            advantages,
            returns,
            self.values[:-1].flatten().index_select(0, indices),
        )

    def frames_at(self, indices: Tensor) -> Tensor:
        """(B, C, H, W) copies of frames by their numbers among this process's frames."""
        # Index in the order of memory, so that each frame is copied as one block.
        rows = self.frames.permute(0, 1, 3, 4, 2).flatten(0, 1)
        return rows.index_select(0, indices).permute(0, 3, 1, 2)
