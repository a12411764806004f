"""The Nature, Impala and Impoola encoders at any width, and agents with these encoders."""

from __future__ import annotations

from typing import Literal, get_args

from gsprune.networks.frames import FRAME_SHAPE, ObservationShape, example_frames
from gsprune.networks.heads import ActorCritic, Agent, Encoder, QNetwork
from gsprune.networks.impala import ImpalaEncoder
from gsprune.networks.nature import NatureEncoder

__all__ = [
    "FRAME_SHAPE",
    "ActorCritic",
    "Agent",
    "Encoder",
    "EncoderName",
    "ImpalaEncoder",
    "NatureEncoder",
    "ObservationShape",
    "QNetwork",
    "build_encoder",
    "example_frames",
]

EncoderName = Literal["nature", "impala", "impoola"]


def build_encoder(
    name: EncoderName, width: float = 1, observation_shape: ObservationShape = FRAME_SHAPE, num_features: int = 256
) -> ImpalaEncoder | NatureEncoder:
    """The encoder of that name.

    Args:
        name: "nature", "impala" or "impoola".
        width: multiplier of its filters (tau in Impoola), >= 1.
        observation_shape: (C, H, W) of one observation.
        num_features: size of the output; not scaled by `width`.

    Raises:
        ValueError: the encoder is unknown, `width` is below 1, or the observations are too small.
    """
    if name not in get_args(EncoderName):
        raise ValueError(f"`name` must be 'nature', 'impala' or 'impoola', got {name!r}")
    if name == "nature":
        return NatureEncoder(width, num_features, observation_shape)
    return ImpalaEncoder(width, name == "impoola", num_features, observation_shape)
