"""The formulas of DQN as pure functions: n-step returns, double-Q targets, prioritised weights, exploration."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gsprune.arrays import BoolArray, Float32Array, Float64Array, IntArray

__all__ = [
    "double_dqn_targets",
    "epsilon_at",
    "epsilon_greedy",
    "importance_weights",
    "n_step_returns",
    "priorities",
    "q_loss",
]


def n_step_returns(
    rewards: Float32Array, ended: BoolArray, truncated: BoolArray, gamma: float
) -> tuple[Float32Array, Float32Array]:
    """Returns over windows of n steps, cut off where an episode ends inside the window.

        R = Σ_{k<m} γ^k r_k;   d = γ^m, or 0 where the game ended within the window

    m is n, or the number of steps until the episode ended. The target of the window's first step is R + d·Q(s_m). Where
    a time limit ended the episode, s_m is its last observation.

    Args:
        rewards: (n, B) float32; r_k is received after the k-th action of the window. Reward units.
        ended: (n, B) bool; True where the episode ended with step k.
        truncated: (n, B) bool; True where a time limit ended it.
        gamma: discount per step in [0, 1].

    Returns:
        (B,) float32 returns and (B,) float32 discounts of the bootstrap value.

    Source: Sutton & Barto 2018, sec. 7.1; Hessel et al. 2018, https://arxiv.org/abs/1710.02298
    """
    returns = np.zeros(rewards.shape[1], dtype=np.float64)
    weight = np.ones(rewards.shape[1], dtype=np.float64)
    after_truncation = np.zeros(rewards.shape[1], dtype=np.float64)
    for reward, ends, is_cut in zip(rewards, ended, truncated, strict=True):
        returns += weight * reward
        weight *= gamma
        after_truncation += weight * is_cut
        weight *= ~ends
    return returns.astype(np.float32), (weight + after_truncation).astype(np.float32)


def double_dqn_targets(returns: Tensor, discounts: Tensor, next_online: Tensor, next_target: Tensor) -> Tensor:
    """Targets whose bootstrap action is chosen by the online network and valued by the target network.

        y = R + d · Q_target(s_m, argmax_a Q_online(s_m, a))

    Args:
        returns: (B,) n-step returns.
        discounts: (B,) from `n_step_returns`.
        next_online: (B, A) online values of s_m, the observation that ends the window.
        next_target: (B, A) target values of s_m.

    Returns:
        (B,) targets, without gradient.

    Source: van Hasselt et al. 2016, https://arxiv.org/abs/1509.06461
    """
    with torch.no_grad():
        chosen = next_online.argmax(dim=1, keepdim=True)
        return returns + discounts * next_target.gather(1, chosen).squeeze(1)


def q_loss(values: Tensor, actions: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean squared error of the taken actions' values.

        L = mean_i w_i δ_i²,   δ_i = y_i - Q(s_i, a_i)

    The weights enter once, outside the square.

    Args:
        values: (B, A) online values of the first observations.
        actions: (B,) int64.
        targets: (B,) from `double_dqn_targets`.
        weights: (B,) from `importance_weights`.

    Returns:
        The scalar loss and the (B,) errors δ, these without gradient.
    """
    errors = targets - values.gather(1, actions.unsqueeze(1)).squeeze(1)
    return (weights * errors.square()).mean(), errors.detach()


def priorities(errors: Float32Array, alpha: float, eps: float) -> Float64Array:
    """Sampling weights of transitions, p = (|δ| + ε)^α.

    Args:
        errors: (B,) float32 errors δ.
        alpha: 0 samples uniformly, 1 in proportion to the error.
        eps: keeps transitions without error reachable, > 0.

    Returns:
        (B,) float64.

    Source: Schaul et al. 2016, sec. 3.3, https://arxiv.org/abs/1511.05952
    """
    return np.asarray((np.abs(errors.astype(np.float64)) + eps) ** alpha)


def importance_weights(sampled: Float64Array, beta: float) -> Float32Array:
    """Weights that undo a part of the bias of prioritised sampling, divided by their mean.

        w_i ∝ (N · P(i))^-β,   mean(w) = 1

    N and the total of all priorities are common factors, so they cancel.

    Args:
        sampled: (B,) float64 priorities (the weights they were sampled by), > 0.
        beta: 0 corrects nothing, 1 everything.

    Returns:
        (B,) float32.

    Source: Schaul et al. 2016, sec. 3.4; there divided by the maximum, here by the mean, as the paper's agent does.
    """
    # Dividing by the largest first keeps the powers in range for any scale of the errors.
    weights = (sampled / sampled.max()) ** -beta
    return np.asarray(weights / weights.mean(), dtype=np.float32)


def epsilon_at(step: int, total_steps: int, final: float, fraction: float) -> float:
    """Probability of a random action: falls linearly from 1 to `final` over the first `fraction` of training.

    `fraction` is in (0, 1]; steps are environment steps.
    """
    return max(final, 1.0 + (final - 1.0) * step / (fraction * total_steps))


def epsilon_greedy(greedy: IntArray, epsilon: float, num_actions: int, rng: np.random.Generator) -> IntArray:
    """Replace (N,) greedy actions by uniformly random ones with probability `epsilon`, with one coin per environment.

    The generator always advances by the same amount.
    """
    explores = rng.random(len(greedy)) < epsilon
    return np.where(explores, rng.integers(num_actions, size=len(greedy)), greedy)
