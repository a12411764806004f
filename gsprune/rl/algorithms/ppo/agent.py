"""PPO's network, and its part for acting."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from gsprune.networks import ActorCritic, Encoder
from gsprune.rl.algorithms.ppo.actions import DiagonalGaussian, distribution_of
from gsprune.rl.envs.provider import EnvironmentDescription

__all__ = ["PolicyNetwork", "acting_part", "build_network"]


class PolicyNetwork(nn.Module):
    """The part of an actor-critic that acts: maps observations to logits or means."""

    def __init__(self, agent: ActorCritic) -> None:
        """Share the layers of `agent`."""
        super().__init__()
        self.encoder = agent.encoder
        self.actor = agent.actor

    def forward(self, frames: Tensor) -> Tensor:
        """(B, C, H, W) uint8 -> logits or means (B, num_outputs)."""
        return cast(Tensor, self.actor(self.encoder(frames)))


class _FirstOutput(nn.Module):
    """The first output of a user's network, which is the policy's."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor) -> Tensor:
        """(B, C, H, W) uint8 -> logits or means (B, num_outputs)."""
        outputs: Tensor = self.network(frames)[0]
        return outputs


def build_network(encoder: Encoder, environment: EnvironmentDescription) -> nn.Module:
    """An actor-critic on an encoder, for the actions of an environment."""
    distribution = distribution_of(environment.action_space)
    return ActorCritic(encoder, distribution.num_outputs, isinstance(distribution, DiagonalGaussian))


def acting_part(network: nn.Module) -> nn.Module:
    """The part of the network that acts, without values."""
    return PolicyNetwork(network) if isinstance(network, ActorCritic) else _FirstOutput(network)
