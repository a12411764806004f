"""DQN's network."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from gsprune.networks import Encoder, QNetwork
from gsprune.rl.envs.provider import EnvironmentDescription

__all__ = ["build_network", "check_outputs", "num_actions"]


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


def check_outputs(outputs: Any, network: nn.Module, environment: EnvironmentDescription) -> None:
    """Raise a ValueError unless the outputs of `network` for 2 frames are the values of all actions."""
    count = num_actions(environment)
    got = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    if got != (2, count):
        raise ValueError(
            f"`network` must return action values of shape (B, {count}) for {environment.action_space}, but"
            f" {type(network).__name__} returns {got} for 2 frames"
        )
