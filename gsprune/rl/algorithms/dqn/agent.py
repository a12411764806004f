"""DQN's network."""

from __future__ import annotations

from torch import nn

from gsprune.networks import Encoder, QNetwork
from gsprune.rl.envs.provider import EnvironmentDescription

__all__ = ["build_network", "num_actions"]


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
