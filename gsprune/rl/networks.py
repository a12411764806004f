"""The network of a run, built from its options: an encoder with the algorithm's heads, or the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from gsprune.networks import Encoder
from gsprune.rl.encoders import configured_encoder
from gsprune.rl.envs.provider import EnvironmentDescription
from gsprune.rl.objects import named_object

__all__ = ["BuildNetwork", "configured_network"]

BuildNetwork = Callable[[Encoder, EnvironmentDescription], nn.Module]
"""An algorithm's network on an encoder."""


def configured_network(
    options: Mapping[str, Any], environment: EnvironmentDescription, build: BuildNetwork
) -> nn.Module:
    """The dense network of a run, on the CPU, initialised from PyTorch's global random state.

    Args:
        options: of the run, by name: `network`, or `encoder`, `width` and `num_features`.
        environment: whose observations and actions it must fit.
        build: the algorithm's.

    Raises:
        ValueError: an option names nothing.
        TypeError: the user's factory returns something else than a module.
    """
    own = options.get("network")
    if own is None:
        encoder = configured_encoder(
            options["encoder"], options["width"], environment.observation_shape, options.get("num_features", 256)
        )
        return build(encoder, environment)
    network = named_object(own, "network")(environment)
    if not isinstance(network, nn.Module):
        raise TypeError(
            f"`network` {own!r} must be a callable(environment description) -> torch.nn.Module, but it returns"
            f" {type(network).__name__}"
        )
    return network
