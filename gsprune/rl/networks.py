"""Builds the network of a run from its options: an encoder with the algorithm's heads, or a network of the user."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from gsprune.networks import Encoder
from gsprune.rl.encoders import configured_encoder
from gsprune.rl.envs.provider import EnvironmentDescription
from gsprune.rl.objects import named_factory

__all__ = ["BuildNetwork", "configured_network"]

BuildNetwork = Callable[[Encoder, EnvironmentDescription], nn.Module]
"""(encoder, environment) -> the algorithm's network."""


def configured_network(
    options: Mapping[str, Any], environment: EnvironmentDescription, build: BuildNetwork
) -> nn.Module:
    """The dense network of a run, on the CPU, initialised from PyTorch's global random state.

    Args:
        options: the run's options by name: `network`, or `encoder`, `width` and `num_features`.
        environment: the environment, with the observations and actions of the network.
        build: makes the algorithm's network on an encoder.

    Raises:
        ValueError: the encoder or the network is unknown.
        TypeError: the user's factory does not return a module.
    """
    own = options.get("network")
    if own is None:
        encoder = configured_encoder(
            options["encoder"], options["width"], environment.observation_shape, options.get("num_features", 256)
        )
        return build(encoder, environment)
    network = named_factory(own, "network", "environment_description")(environment)
    if not isinstance(network, nn.Module):
        raise TypeError(
            f"`network` {own!r} must be a callable(environment description) -> torch.nn.Module, but it returns"
            f" {type(network).__name__}"
        )
    return network
