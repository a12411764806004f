"""Builds the network of a run from its options: an encoder with the algorithm's heads, or a network of the user."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast, get_args

from torch import nn

from gsprune.checks import suggestion
from gsprune.networks import Encoder, EncoderName, ObservationShape, build_encoder
from gsprune.rl.envs.provider import EnvironmentDescription
from gsprune.rl.objects import named_object

__all__ = ["BuildNetwork", "check_encoder", "configured_network"]

_ENCODERS = get_args(EncoderName)

BuildNetwork = Callable[[Encoder, EnvironmentDescription], nn.Module]
"""(encoder, environment) -> the algorithm's network."""


def configured_network(
    options: Mapping[str, Any], environment: EnvironmentDescription, build: BuildNetwork
) -> nn.Module:
    """The dense network of a run, on the CPU, initialised from PyTorch's global random state.

    The run's options by name are `network`, or `encoder`, `width` and `num_features`. `build` makes the algorithm's
    network on an encoder.

    Raises:
        ValueError: the encoder or the network is unknown.
        TypeError: the user's factory does not return a module.
    """
    own = options.get("network")
    if own is None:
        return build(_encoder(options, environment.observation_shape), environment)
    network = named_object(own, "network")(environment)
    if not isinstance(network, nn.Module):
        raise TypeError(
            f"`network` {own!r} must be a callable(environment description) -> torch.nn.Module, but it returns"
            f" {type(network).__name__}"
        )
    return network


def check_encoder(name: str) -> None:
    """Raise a ValueError if there is no encoder of that name."""
    if ":" in name:
        _own_factory(name)
    elif name not in _ENCODERS:
        raise ValueError(
            f"`encoder` must be one of {', '.join(_ENCODERS)}, or package.module:factory for your own, got {name!r}"
            f"{suggestion(name, _ENCODERS)}"
        )


def _encoder(options: Mapping[str, Any], observation_shape: ObservationShape) -> Encoder:
    """The built-in encoder that the options name, or the user's own."""
    name = options["encoder"]
    check_encoder(name)
    if ":" not in name:
        width, num_features = options["width"], options.get("num_features", 256)
        return build_encoder(cast(EncoderName, name), width, observation_shape, num_features)
    encoder = _own_factory(name)(observation_shape)
    if not isinstance(encoder, nn.Module) or not isinstance(getattr(encoder, "num_features", None), int):
        raise TypeError(
            f"`encoder` {name!r} must return a torch.nn.Module with an int attribute `num_features`, the size of its"
            f" output, got {type(encoder).__name__}"
        )
    return cast(Encoder, encoder)


def _own_factory(name: str) -> Callable[[ObservationShape], Any]:
    factory = named_object(name, "encoder")
    if not callable(factory):
        raise TypeError(
            f"`encoder` {name!r} must be a callable(observation_shape) -> torch.nn.Module, got {type(factory).__name__}"
        )
    return cast(Callable[[ObservationShape], Any], factory)
