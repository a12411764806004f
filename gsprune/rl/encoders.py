"""The encoder that a configuration names: a built-in one or the user's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast, get_args

from torch import nn

from gsprune.checks import suggestion
from gsprune.networks import Encoder, EncoderName, ObservationShape, build_encoder
from gsprune.rl.objects import named_object

__all__ = ["check_encoder", "configured_encoder"]

_NAMES = get_args(EncoderName)


def check_encoder(name: str) -> None:
    """Raise a ValueError if there is no encoder of that name."""
    if ":" in name:
        _own_factory(name)
    elif name not in _NAMES:
        raise ValueError(
            f"`encoder` must be one of {', '.join(_NAMES)}, or package.module:factory for your own, got {name!r}"
            f"{suggestion(name, _NAMES)}"
        )


def configured_encoder(
    name: str, width: float, observation_shape: ObservationShape, num_features: int = 256
) -> Encoder:
    """The encoder of that name, "nature", "impala", "impoola", or "package.module:factory".

    The width multiplies a built-in encoder's filters; `num_features` is the size of its output.

    Raises:
        ValueError: there is no such encoder.
        TypeError: the user's factory does not return a module with `num_features`.
    """
    check_encoder(name)
    if ":" not in name:
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
