"""The terms of PPO's loss as pure functions of one minibatch.

Source: Schulman et al. 2017, https://arxiv.org/abs/1707.06347
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "PolicyLoss",
    "categorical_entropy",
    "categorical_logprobs",
    "clipped_value_loss",
    "normalized",
    "policy_loss",
    "value_loss",
]


class PolicyLoss(NamedTuple):
    """Loss of the policy and how far the policy has moved.

    Attributes:
        loss: scalar, to be minimised.
        approx_kl: scalar without gradient, estimate of KL(old, new).
        clipfrac: scalar without gradient, fraction of ratios outside the clip range.
    """

    loss: Tensor
    approx_kl: Tensor
    clipfrac: Tensor


def categorical_logprobs(logits: Tensor, actions: Tensor) -> Tensor:
    """(B,) log probabilities of (B,) actions under (B, A) logits: log softmax(logits)[a]."""
    return torch.log_softmax(logits, dim=-1).gather(-1, actions.unsqueeze(-1)).squeeze(-1)


def categorical_entropy(logits: Tensor) -> Tensor:
    """(B,) entropies of the softmax of (B, A) logits in nats, between 0 and log A: −Σ_a p_a·log p_a."""
    logprobs = torch.log_softmax(logits, dim=-1)
    return -(logprobs.exp() * logprobs).sum(-1)


def normalized(advantages: Tensor) -> Tensor:
    """Advantages shifted and scaled to mean 0 and standard deviation 1: (A − mean) / (std + 1e-8).

    Args:
        advantages: (B,), B >= 2; the standard deviation is the unbiased one.
    """
    return (advantages - advantages.mean()) / (advantages.std() + 1e-8)


def policy_loss(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip_coef: float) -> PolicyLoss:
    """The clipped surrogate.

        ρ = exp(log π − log π_old);   L = mean(max(−A·ρ, −A·clip(ρ, 1 − c, 1 + c)))

    `approx_kl` is mean(ρ − 1 − log ρ), which is unbiased, never negative and of low variance
    (Schulman 2020, http://joschu.net/blog/kl-approx.html).

    Args:
        logprobs: (B,) of the actions taken, under the present policy.
        old_logprobs: (B,) under the policy that acted; no gradient flows there.
        advantages: (B,), no gradient flows there.
        clip_coef: c > 0.
    """
    logratio = logprobs - old_logprobs
    ratio = logratio.exp()
    clipped = ratio.clamp(1 - clip_coef, 1 + clip_coef)
    loss = torch.maximum(-advantages * ratio, -advantages * clipped).mean()
    with torch.no_grad():
        approx_kl = (ratio - 1 - logratio).mean()
        clipfrac = ((ratio - 1).abs() > clip_coef).float().mean()
    return PolicyLoss(loss, approx_kl, clipfrac)


def value_loss(values: Tensor, returns: Tensor) -> Tensor:
    """Half the mean squared error of (B,) values, not clipped: mean((v − G)²) / 2."""
    return 0.5 * (values - returns).square().mean()


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip_coef: float) -> Tensor:
    """Half the mean of the larger squared error, that of the values or that of the clipped values.

        L = mean(max((v − G)², (v_old + clip(v − v_old, −c, c) − G)²)) / 2

    Args:
        values: (B,).
        old_values: (B,) when the rollout was played.
        returns: (B,).
        clip_coef: c > 0.
    """
    clipped = old_values + (values - old_values).clamp(-clip_coef, clip_coef)
    return 0.5 * torch.maximum((values - returns).square(), (clipped - returns).square()).mean()
