"""PPO's network, and its part for acting."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from gsprune.networks import ActorCritic, Encoder
from gsprune.rl.algorithms.ppo.actions import DiagonalGaussian, distribution_of
from gsprune.rl.envs.provider import EnvironmentDescription

__all__ = ["PolicyNetwork", "acting_part", "build_network", "check_outputs"]


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


def check_outputs(outputs: Any, network: nn.Module, environment: EnvironmentDescription) -> None:
    """Check the outputs of an actor-critic.

    Args:
        outputs: those of `network` for 2 frames.
        network: the actor-critic.
        environment: its actions determine the shapes.

    Raises:
        ValueError: they are not the outputs of a policy and values, or a Gaussian policy has no `log_std`.
    """
    distribution = distribution_of(environment.action_space)
    count = distribution.num_outputs
    parts = outputs if isinstance(outputs, tuple | list) else (outputs,)
    got = [tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__ for part in parts]
    if got != [(2, count), (2,)]:
        raise ValueError(
            f"`network` must return ({distribution.output}, values) of shapes (B, {count}) and (B,) for"
            f" {environment.action_space}, but {type(network).__name__} returns {', '.join(map(str, got))} for 2 frames"
        )
    if isinstance(distribution, DiagonalGaussian):
        log_std = getattr(network, "log_std", None)
        if not isinstance(log_std, Tensor) or log_std.shape not in ((), (1,), (count,)):
            shape = tuple(log_std.shape) if isinstance(log_std, Tensor) else log_std
            raise ValueError(
                f"`network` needs a parameter `log_std` of shape ({count},), the logarithms of the standard deviations"
                f" of {environment.action_space}, but that of {type(network).__name__} is {shape}"
            )


def acting_part(network: nn.Module) -> nn.Module:
    """The part of the network that acts, without values."""
    return PolicyNetwork(network) if isinstance(network, ActorCritic) else _FirstOutput(network)
