"""DQN's network, and its policy."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gsprune.networks import Encoder, QNetwork
from gsprune.rl.envs.provider import EnvironmentDescription
from gsprune.rl.evaluation.episodes import Policy, greedy_policy

__all__ = ["build_network", "num_actions", "policy"]


def num_actions(environment: EnvironmentDescription) -> int:
    """The number of actions.

    Raises:
        ValueError: the actions are not discrete.
    """
    from gymnasium.spaces import Discrete

    space = environment.action_space
    if not isinstance(space, Discrete) or space.start != 0:
        raise ValueError(
            f"DQN needs a Discrete action space that is numbered from 0, got {space}; train by PPO, or make the actions"
            " discrete by gymnasium.wrappers.TransformAction"
        )
    return int(space.n)


def build_network(encoder: Encoder, environment: EnvironmentDescription) -> nn.Module:
    """Action values on an encoder, for the actions of an environment."""
    return QNetwork(encoder, num_actions(environment))


def policy(
    outputs: Callable[[Tensor], Tensor],
    network: nn.Module,
    environment: EnvironmentDescription,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
) -> Policy:
    """A policy that takes the action of the highest value."""
    del network, environment, generator
    return greedy_policy(outputs, device)
