"""The encoders of the paper at any width, and the agents made of them."""

from __future__ import annotations

from typing import Literal

from gsprune.networks.frames import FRAME_CHANNELS, FRAME_SIDE, example_frames
from gsprune.networks.heads import ActorCritic, Agent, Encoder, QNetwork
from gsprune.networks.impala import ImpalaEncoder
from gsprune.networks.nature import NatureEncoder

__all__ = [
    "FRAME_CHANNELS",
    "FRAME_SIDE",
    "ActorCritic",
    "Agent",
    "Encoder",
    "EncoderName",
    "ImpalaEncoder",
    "NatureEncoder",
    "QNetwork",
    "build_encoder",
    "example_frames",
]

EncoderName = Literal["nature", "impala", "impoola"]


def build_encoder(name: EncoderName, width: float = 1) -> Encoder:
    """The encoder of that name.

    Args:
        name: "nature", "impala" or "impoola".
        width: factor on the filters of its convolutions (the paper's tau), >= 1.

    Raises:
        ValueError: there is no such encoder, or `width` is below 1.
    """
    if name == "nature":
        return NatureEncoder(width)
    if name in ("impala", "impoola"):
        return ImpalaEncoder(width, pooled=name == "impoola")
    raise ValueError(f"`name` must be 'nature', 'impala' or 'impoola', got {name!r}")
