"""Builds the network of a run from its options: an encoder with the algorithm's heads, or a network of the user."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any, cast, get_args

from torch import Tensor, nn

from gsprune.checks import suggestion
from gsprune.errors import failure_text, is_out_of_memory
from gsprune.networks import Encoder, EncoderName, ObservationShape, build_encoder, example_frames
from gsprune.rl.envs.provider import EnvironmentDescription
from gsprune.rl.objects import named_factory
from gsprune.tracing.temporary_eval import temporary_eval

__all__ = ["BuildNetwork", "check_encoder", "configured_network"]

_ENCODERS = get_args(EncoderName)
_CHECKED_FRAMES = 2

BuildNetwork = Callable[[Encoder, EnvironmentDescription], nn.Module]
"""(encoder, environment) -> the algorithm's network."""


def configured_network(
    options: Mapping[str, Any], environment: EnvironmentDescription, build: BuildNetwork
) -> nn.Module:
    """The dense network of a run, on the CPU, initialised from PyTorch's global random state.

    The run's options by name are `network`, or `encoder`, `width` and `num_features`. `build` makes the algorithm's
    network on an encoder.

    Raises:
        ValueError: the encoder or the network is unknown, or the user's encoder fails on frames or returns no features.
        TypeError: the user's factory does not return a module.
    """
    factory = options.get("network")
    if factory is None:
        return build(_encoder(options, environment.observation_shape), environment)
    network = named_factory(factory, "network", "environment_description")(environment)
    if not isinstance(network, nn.Module):
        raise TypeError(
            f"`network` {factory!r} must be a callable(environment description) -> torch.nn.Module, but it returns"
            f" {type(network).__name__}"
        )
    return network


def check_encoder(name: str) -> None:
    """Raise a ValueError if there is no encoder of that name."""
    if ":" in name:
        _user_factory(name)
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
    encoder = _user_factory(name)(observation_shape)
    features = getattr(encoder, "num_features", None)
    if not isinstance(encoder, nn.Module) or not isinstance(features, Integral):
        has = f" with {features!r}" if isinstance(encoder, nn.Module) else ""
        raise TypeError(
            f"`encoder` {name!r} must return a torch.nn.Module with an int attribute `num_features`, the size of its"
            f" output, got {type(encoder).__name__}{has}"
        )
    _check_features(name, encoder, observation_shape, int(features))
    return cast(Encoder, encoder)


def _user_factory(name: str) -> Callable[[ObservationShape], Any]:
    return named_factory(name, "encoder", "observation_shape")


def _check_features(name: str, encoder: nn.Module, observation_shape: ObservationShape, num_features: int) -> None:
    """Raise an error unless the encoder maps frames to features."""
    frames = example_frames(_CHECKED_FRAMES, observation_shape=observation_shape)
    try:
        with temporary_eval(encoder):
            features = encoder(frames)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ValueError(
            f"`encoder` {name!r} must take frames (B, C, H, W) of dtype uint8, but it fails on"
            f" {tuple(frames.shape)} with {failure_text(error)}"
        ) from error
    if not isinstance(features, Tensor) or features.shape != (len(frames), num_features):
        got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(
            f"`encoder` {name!r} must return features (B, num_features), {(len(frames), num_features)} for"
            f" {len(frames)} frames, got {got}"
        )
