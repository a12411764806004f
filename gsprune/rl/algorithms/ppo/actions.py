"""The action distributions of PPO: categorical ones, and a diagonal Gaussian."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from gsprune.arrays import AnyArray
from gsprune.rl.algorithms.ppo.losses import categorical_entropy, categorical_logprobs
from gsprune.rl.evaluation.episodes import Policy

__all__ = [
    "ActionDistribution",
    "Categorical",
    "DiagonalGaussian",
    "distribution_of",
    "sampled_policy",
]


class ActionDistribution(Protocol):
    """A family of distributions over the actions of one space.

    Attributes:
        num_outputs: size of the policy head.
        action_shape: shape of one action in the rollout; () for one number.
        dtype: dtype of actions in the rollout.
        output: name of the policy head's output in exports: "logits" or "means".
    """

    num_outputs: int
    action_shape: tuple[int, ...]
    dtype: torch.dtype
    output: str

    def parameters(self, outputs: Tensor, network: nn.Module) -> Tensor:
        """(B, num_outputs) outputs of the policy head -> (B, P) parameters of the distribution."""

    def noise(self, num_envs: int, device: torch.device, generator: torch.Generator) -> Tensor:
        """(num_envs, num_outputs) random numbers that `sample` turns into actions."""

    def sample(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """(B, *action_shape) actions."""

    def logprobs(self, parameters: Tensor, actions: Tensor) -> Tensor:
        """(B,) log probabilities, or log densities, of actions."""

    def entropy(self, parameters: Tensor) -> Tensor:
        """(B,) entropies in nats."""

    def divergence(self, parameters: Tensor, others: Tensor) -> Tensor:
        """(B,) Kullback-Leibler divergences KL(p || q) in nats, of p with `parameters` and q with `others`."""

    def to_environment(self, actions: Tensor) -> AnyArray:
        """Convert actions to the format of the environments."""


class Categorical:
    """One choice among numbered actions, or several independent ones whose logits are concatenated."""

    output = "logits"
    dtype = torch.int64

    def __init__(self, sizes: Sequence[int], action_shape: tuple[int, ...]) -> None:
        """Set the number of actions of each choice, and the shape of one action: (choices,), or () for one choice."""
        self._sizes = list(sizes)
        self.num_outputs = sum(sizes)
        self.action_shape = action_shape

    def parameters(self, outputs: Tensor, network: nn.Module) -> Tensor:
        """The logits."""
        del network
        return outputs

    def noise(self, num_envs: int, device: torch.device, generator: torch.Generator) -> Tensor:
        """(num_envs, num_outputs) exponential noise."""
        return torch.empty((num_envs, self.num_outputs), device=device).exponential_(generator=generator)

    def sample(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """(B, *action_shape) actions, as ``torch.multinomial`` draws them."""
        pairs = zip(self._split(parameters), self._split(noise), strict=True)
        chosen = [(torch.softmax(logits, -1) / drawn).argmax(-1) for logits, drawn in pairs]
        return torch.stack(chosen, -1).reshape(-1, *self.action_shape)

    def logprobs(self, parameters: Tensor, actions: Tensor) -> Tensor:
        """Log softmax at the actions, summed over the choices."""
        columns = actions.reshape(-1, len(self._sizes)).unbind(-1)
        pairs = zip(self._split(parameters), columns, strict=True)
        return torch.stack([categorical_logprobs(logits, chosen) for logits, chosen in pairs]).sum(0)

    def entropy(self, parameters: Tensor) -> Tensor:
        """Entropies of the softmax, summed over the choices."""
        return torch.stack([categorical_entropy(logits) for logits in self._split(parameters)]).sum(0)

    def divergence(self, parameters: Tensor, others: Tensor) -> Tensor:
        """Sum over the actions of p (log p - log q), and over the choices."""
        pairs = zip(self._split(parameters), self._split(others), strict=True)
        logs = [(torch.log_softmax(logits, -1), torch.log_softmax(other, -1)) for logits, other in pairs]
        return torch.stack([(own.exp() * (own - other)).sum(-1) for own, other in logs]).sum(0)

    def to_environment(self, actions: Tensor) -> AnyArray:
        """The actions."""
        return np.asarray(actions.cpu().numpy())

    def _split(self, columns: Tensor) -> Sequence[Tensor]:
        """The columns of each choice."""
        return torch.split(columns, self._sizes, -1)


class DiagonalGaussian:
    """Real numbers with independent normal distributions.

        a ~ N(mean(s), exp(log_std)²);   the environment gets clip(a, low, high)

    The standard deviations are parameters of the network and do not depend on the observation. Only the environment
    gets clipped actions. Log probabilities are those of the unclipped actions. Both are as in Stable-Baselines3.
    """

    output = "means"
    dtype = torch.float32

    def __init__(self, low: AnyArray, high: AnyArray) -> None:
        """Set the bounds, which have the shape and dtype of the environment's actions."""
        self._low = low
        self._high = high
        self.num_outputs = low.size
        self.action_shape: tuple[int, ...] = (low.size,)

    def parameters(self, outputs: Tensor, network: nn.Module) -> Tensor:
        """(B, 2 D): the means, and the logarithms of the standard deviations."""
        log_std: Any = network.log_std
        return torch.cat([outputs, log_std.float().expand_as(outputs)], -1)

    def noise(self, num_envs: int, device: torch.device, generator: torch.Generator) -> Tensor:
        """(num_envs, D) standard normal noise."""
        return torch.randn((num_envs, self.num_outputs), device=device, generator=generator)

    def sample(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """(B, D) unclipped actions."""
        means, log_std = parameters.chunk(2, -1)
        return means + log_std.exp() * noise

    def logprobs(self, parameters: Tensor, actions: Tensor) -> Tensor:
        """Log densities of unclipped actions."""
        means, log_std = parameters.chunk(2, -1)
        deviations = (actions - means) * torch.exp(-log_std)
        return (-0.5 * deviations.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self, parameters: Tensor) -> Tensor:
        """Differential entropies, which may be negative."""
        _, log_std = parameters.chunk(2, -1)
        return (log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)

    def divergence(self, parameters: Tensor, others: Tensor) -> Tensor:
        """Sum over the dimensions of log(s_q / s_p) + (s_p² + (m_p - m_q)²) / (2 s_q²) - 1/2."""
        (means, log_std), (other_means, other_log_std) = parameters.chunk(2, -1), others.chunk(2, -1)
        widening = other_log_std - log_std
        shift = (means - other_means) * torch.exp(-other_log_std)
        return (widening + 0.5 * (torch.exp(-2 * widening) + shift.square() - 1)).sum(-1)

    def to_environment(self, actions: Tensor) -> AnyArray:
        """Actions clipped to the bounds."""
        shaped = actions.cpu().numpy().reshape(-1, *self._low.shape)
        return np.clip(shaped, self._low, self._high).astype(self._low.dtype)


def distribution_of(space: Any) -> ActionDistribution:
    """The distribution over the actions of a space.

    Raises:
        ValueError: PPO does not support the space.
    """
    from gymnasium.spaces import Box, Discrete, MultiDiscrete

    if isinstance(space, Discrete) and space.start == 0:
        return Categorical([int(space.n)], ())
    if isinstance(space, MultiDiscrete) and space.nvec.ndim == 1 and not space.start.any():
        return Categorical(space.nvec.tolist(), space.shape)
    if isinstance(space, Box) and np.issubdtype(space.dtype, np.floating):
        return DiagonalGaussian(space.low, space.high)
    raise ValueError(
        f"PPO needs a Discrete, MultiDiscrete or floating-point Box action space, numbered from 0, got {space};"
        " convert the actions by gymnasium.wrappers.TransformAction"
    )


def sampled_policy(
    distribution: ActionDistribution,
    outputs: Callable[[Tensor], Tensor],
    network: nn.Module,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
) -> Policy:
    """A policy that samples its actions.

    Its separate generator keeps an evaluation during a training from changing the training's random numbers.

    Args:
        distribution: the distribution of the actions.
        outputs: observations (B, C, H, W) uint8 on `device` -> logits or means (B, num_outputs).
        network: has the distribution's other parameters.
        generator: a generator on `device`.
        device: the network's device.
    """

    def act(observations: Tensor) -> AnyArray:
        with torch.no_grad():
            parameters = distribution.parameters(outputs(observations.to(device)).float(), network)
            noise = distribution.noise(len(observations), torch.device(device), generator)
            return distribution.to_environment(distribution.sample(parameters, noise))

    return act
