"""Advantages of a rollout, explained variance, and the normalisation of rewards.

Time runs along the first axis. The reward of step t is received after acting at t, and ``discounts[t]`` is gamma, or 0
where step t ended an episode.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gsprune.arrays import BoolArray, Float32Array, Float64Array, FloatArray
from gsprune.checks import check_number

__all__ = ["RewardNormalizer", "explained_variance", "gae"]


def gae(rewards: FloatArray, values: FloatArray, discounts: FloatArray, gae_lambda: float) -> Float32Array:
    """Generalised advantage estimates over a rollout.

        δ_t = r_t + d_t·v_{t+1} − v_t;   A_t = δ_t + d_t·λ·A_{t+1},  A_T = 0

    Args:
        rewards: (T, N); r_t is received after acting at step t.
        values: (T + 1, N); the last row is the value of the state after the last step.
        discounts: (T, N) in [0, 1]; gamma, or 0 where step t ended an episode.
        gae_lambda: trade-off between bias (0) and variance (1).

    Returns:
        (T, N) float32 advantages; the inputs are not modified.

    Raises:
        ValueError: a shape disagrees, or `gae_lambda` is outside [0, 1].

    Source: Schulman et al. 2016, section 3, https://arxiv.org/abs/1506.02438
    """
    num_steps, num_envs = rewards.shape
    if values.shape != (num_steps + 1, num_envs):
        raise ValueError(f"`values` must have shape {(num_steps + 1, num_envs)}, got {values.shape}")
    if discounts.shape != rewards.shape:
        raise ValueError(f"`discounts` must have the shape of `rewards`, {rewards.shape}, got {discounts.shape}")
    check_number("gae_lambda", gae_lambda, at_least=0, at_most=1)
    deltas = (rewards + discounts * values[1:] - values[:-1]).astype(np.float32)
    decays = (discounts * gae_lambda).astype(np.float32)
    advantages = np.empty((num_steps, num_envs), np.float32)
    following = np.zeros(num_envs, np.float32)
    for t in reversed(range(num_steps)):
        following = deltas[t] + decays[t] * following
        advantages[t] = following
    return advantages


def explained_variance(values: FloatArray, returns: FloatArray) -> float:
    """The explained variance of predicted returns: 1 − Var(G − v) / Var(G).

    Returns:
        1 for perfect predictions, 0 for a constant one, below 0 for worse ones; NaN if the returns are constant.
    """
    variance = float(np.var(returns, dtype=np.float64))
    return float("nan") if variance == 0 else 1 - float(np.var(returns - values, dtype=np.float64)) / variance


class RewardNormalizer:
    """Divides rewards by the running standard deviation of the discounted return.

        R_t = γ·R_{t−1} + r_t (0 after an end);   r̂_t = clip(r_t / sqrt(Var(R) + ε), −c, c)

    The variance is taken over all R so far, in all environments, including the present step. The mean is not subtracted
    from the rewards, because that would change which policy is best.

    Source: `VecNormalize` of OpenAI baselines, https://github.com/openai/baselines
    """

    def __init__(self, num_envs: int, gamma: float = 0.99, clip: float = 10.0, epsilon: float = 1e-8) -> None:
        """Start with a variance of 1 and a negligible weight.

        Args:
            num_envs: N.
            gamma: discount of the return R.
            clip: largest absolute normalised reward.
            epsilon: added to the variance.
        """
        self.gamma = gamma
        self.clip = clip
        self.epsilon = epsilon
        self._returns = np.zeros(num_envs, np.float64)
        self._mean = 0.0
        self._variance = 1.0
        self._count = 1e-4

    def __call__(self, rewards: FloatArray, ended: BoolArray) -> Float32Array:
        """Update the variance with one step of all environments; return its (N,) rewards, normalised, as float32."""
        self._returns = self._returns * self.gamma + rewards
        self._merge(self._returns)
        self._returns[ended] = 0
        normalized = np.clip(rewards / np.sqrt(self._variance + self.epsilon), -self.clip, self.clip)
        return np.asarray(normalized, np.float32)

    def state_dict(self) -> dict[str, Any]:
        """The state to save: "returns" (N,) and "moments" (mean, variance, count)."""
        return {"returns": self._returns.copy(), "moments": [self._mean, self._variance, self._count]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the result of `state_dict`."""
        self._returns = np.array(state["returns"], np.float64)
        self._mean, self._variance, self._count = state["moments"]

    def _merge(self, batch: Float64Array) -> None:
        """Merge the moments of `batch` into the running moments (Chan et al. 1979)."""
        count = self._count + len(batch)
        delta = float(batch.mean()) - self._mean
        squares = self._variance * self._count + float(batch.var()) * len(batch)
        squares += delta**2 * self._count * len(batch) / count
        self._mean += delta * len(batch) / count
        self._variance = squares / count
        self._count = count
